//! The calls, by curl, as people make them.

use std::process::Command;

use e2e::Demo;
use e2e::program::run;
use serde_json::Value;

/// What a call answered.
pub struct Said {
    pub status: u16,
    pub body: String,
}

impl Said {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// A refusal, whose reason says this.
    #[track_caller]
    pub fn refused(self, status: u16, said: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        let problem = self.json();
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
        problem
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

/// A call of curl's; what it did not get an answer to has the status 0.
pub fn curl(demo: &Demo, arguments: &[&str]) -> Said {
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "240", "--write-out", "\n%{http_code}", "--cacert"]);
    let output = run(command.arg(&demo.facts.endpoint_ca).args(arguments));
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').expect("the status");
    Said { status: status.parse().unwrap(), body: body.to_owned() }
}

/// A management call.
pub fn manage(demo: &Demo, method: &str, path: &str, body: &str) -> Said {
    let url = format!("{}{path}", demo.facts.management.as_ref().expect("management calls"));
    let mut arguments = vec!["--request", method, url.as_str()];
    if !body.is_empty() {
        arguments.extend(["--data", body]);
    }
    curl(demo, &arguments)
}

/// A call to the name server.
pub fn names(demo: &Demo, call: &str, body: &str) -> Said {
    let url = format!("{}/{call}", demo.facts.dns_management.as_ref().expect("calls to the name server"));
    curl(demo, &["--data", body, &url])
}

/// The directory as clients of Pebble are configured with it.
pub fn pebbles_directory(demo: &Demo) -> String {
    let own = demo.facts.directory.strip_suffix("/acme/open/directory").expect("the directory");
    own.replace("127.0.0.1", "localhost") + "/dir"
}

/// The serial of a chain's leaf, as openssl writes it.
pub fn serial(chain: &std::path::Path) -> String {
    let mut openssl = Command::new("openssl");
    let output = e2e::program::succeed(openssl.args(["x509", "-noout", "-serial", "-in"]).arg(chain));
    String::from_utf8(output.stdout).unwrap().trim().strip_prefix("serial=").unwrap().to_owned()
}
