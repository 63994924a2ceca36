//! PKCS#11 return values, and what they mean for recovery.

use cryptoki::error::{Error, RvError};

use crate::fault::{Fault, RvClass};

/// What a failed call is on the wire.
pub(super) fn call_failed(error: &Error) -> Fault {
    match error {
        Error::Pkcs11(rv, function) => {
            Fault::Call { function: format!("{function:?}"), rv: format!("{rv:?}"), class: classify(*rv) }
        }
        // The wrapper's own: a value that it cannot convert, a function that the module lacks.
        other => {
            Fault::Call { function: "cryptoki".to_owned(), rv: other.to_string(), class: RvClass::Session }
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        call_failed(&error)
    }
}

/// Modules differ in what they return for the same event, so everything that is not known to be milder is `Session`.
pub(super) fn classify(rv: RvError) -> RvClass {
    match rv {
        RvError::ArgumentsBad
        | RvError::AttributeReadOnly
        | RvError::AttributeTypeInvalid
        | RvError::AttributeValueInvalid
        | RvError::CurveNotSupported
        | RvError::DataInvalid
        | RvError::DataLenRange
        | RvError::DomainParamsInvalid
        | RvError::KeyFunctionNotPermitted
        | RvError::KeySizeRange
        | RvError::KeyTypeInconsistent
        | RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::TemplateIncomplete
        | RvError::TemplateInconsistent => RvClass::Input,
        RvError::DeviceMemory
        | RvError::FunctionFailed
        | RvError::HostMemory
        | RvError::SessionCount
        | RvError::UnknownErrorCode(TOKEN_RESOURCE_EXCEEDED) => RvClass::Busy,
        RvError::PinExpired
        | RvError::PinIncorrect
        | RvError::PinInvalid
        | RvError::PinLenRange
        | RvError::PinLocked
        | RvError::UserPinNotInitialized => RvClass::Pin,
        RvError::CryptokiNotInitialized
        | RvError::DeviceError
        | RvError::DeviceRemoved
        | RvError::LibraryLoadFailed
        | RvError::SlotIdInvalid
        | RvError::TokenNotPresent
        | RvError::TokenNotRecognized => RvClass::Device,
        _ => RvClass::Session,
    }
}

/// `CKR_TOKEN_RESOURCE_EXCEEDED` of PKCS #11 v3.1, which the wrapper does not know.
const TOKEN_RESOURCE_EXCEEDED: u64 = 0x201;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_never_a_matter_of_recovery_and_the_unknown_costs_a_session() {
        assert_eq!(classify(RvError::PinIncorrect), RvClass::Pin);
        assert_eq!(classify(RvError::DataLenRange), RvClass::Input);
        assert_eq!(classify(RvError::UnknownErrorCode(0x201)), RvClass::Busy);
        assert_eq!(classify(RvError::DeviceRemoved), RvClass::Device);
        for rv in [
            RvError::GeneralError,
            RvError::OperationActive,
            RvError::ObjectHandleInvalid,
            RvError::SessionHandleInvalid,
            RvError::UnknownErrorCode(0x999),
            RvError::VendorDefined(0x8000_0001),
        ] {
            assert_eq!(classify(rv), RvClass::Session, "{rv:?}");
        }
    }
}
