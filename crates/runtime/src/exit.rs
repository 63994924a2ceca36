//! How a program ends, as the service manager sees it. `docs/operations.md` has the same table.

use std::{error::Error, fmt};

/// The exit codes of every program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or drained after SIGTERM or SIGINT.
    Success = 0,
    /// It failed while running. Starting it again may help.
    Failure = 1,
    /// Wrong arguments or configuration (`--check` finds the same). Starting it again does not help.
    Usage = 2,
    /// Something it depends on said no, and a person has to look: a latched PIN, a database locked by another signer, a
    /// key that is not its certificate's. Starting it again does not help.
    Refused = 3,
    /// A bug: a supervised task panicked. Starting it again may help.
    Panic = 70,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A program's last word: an error and its exit code. Every error becomes one by `?`, with [`ExitCode::Failure`].
pub struct Failure {
    code: ExitCode,
    source: Box<dyn Error + Send + Sync>,
}

impl Failure {
    /// An error with an exit code of its own.
    pub fn new(code: ExitCode, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { code, source: source.into() }
    }

    /// A configuration that cannot work.
    pub fn usage(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ExitCode::Usage, source)
    }

    /// A dependency that said no.
    pub fn refused(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ExitCode::Refused, source)
    }

    /// How the program ends.
    pub fn code(&self) -> ExitCode {
        self.code
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(source: E) -> Self {
        Self::new(ExitCode::Failure, source)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", Causes(self.source.as_ref()))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.code, Causes(self.source.as_ref()))
    }
}

/// An error with what lies under it, on one line.
pub struct Causes<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        formatter.write_str(&said)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Transparent wrappers say what their source says.
            if !said.ends_with(&text) {
                write!(formatter, ": {text}")?;
                said = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("cannot start")]
        Start(#[source] std::io::Error),
        #[error(transparent)]
        Plain(std::io::Error),
    }

    #[test]
    fn causes_are_told_once_each() {
        let absent = || std::io::Error::other("no such file");
        assert_eq!(Failure::from(Outer::Start(absent())).to_string(), "cannot start: no such file");
        assert_eq!(Failure::from(Outer::Plain(absent())).to_string(), "no such file");
        assert_eq!(Failure::from(absent()).code(), ExitCode::Failure);
        assert_eq!(Failure::refused("latched").code(), ExitCode::Refused);
    }
}
