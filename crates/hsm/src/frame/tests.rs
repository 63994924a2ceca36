use super::*;
use crate::fault::RvClass;

fn requests() -> Vec<Request> {
    vec![
        Request::Configure(Configure {
            module: "/m.so".into(),
            label: "ca".into(),
            serial: Some("01".into()),
            pin_file: "/pin".into(),
            latch_file: "/latch".into(),
            sessions: 3,
        }),
        Request::Key { index: 7, id: vec![1, 2], spki: vec![3; 91], origin: Origin::Cloned },
        Request::Sign {
            id: u64::MAX,
            key: 7,
            mechanism: Mechanism::EcdsaP384,
            remaining_micros: 5,
            data: Bytes::from_static(&[9; 48]),
        },
        Request::Recycle { session: 2, key: 7 },
        Request::Find { id: 4, query: KeyQuery::label("root") },
        Request::Generate {
            id: 5,
            key: NewKey { kind: NewKeyKind::Rsa { bits: 3072 }, label: "l".into(), id: vec![] },
        },
        Request::Shutdown,
    ]
}

fn faults() -> Vec<Fault> {
    let (id, reason) = ("0a".to_owned(), "why".to_owned());
    let path = std::path::PathBuf::from("/p");
    vec![
        Fault::Starting,
        Fault::Spawn { reason: reason.clone() },
        Fault::Died { status: reason.clone() },
        Fault::Hung,
        Fault::Protocol { reason: reason.clone() },
        Fault::Module { path: path.clone(), reason: reason.clone() },
        Fault::TokenNotFound { label: id.clone(), serial: None },
        Fault::TokenNotFound { label: id.clone(), serial: Some(id.clone()) },
        Fault::TokenAmbiguous { label: id.clone(), count: 2 },
        Fault::PinUnreadable { path: path.clone(), reason: reason.clone() },
        Fault::PinExposed { path: path.clone() },
        Fault::PinRefused { rv: "PinIncorrect".into(), latch: path.clone() },
        Fault::PinLatched { latch: path.clone() },
        Fault::PinLocked,
        Fault::PinFinalTry,
        Fault::Latch { path, reason: reason.clone() },
        Fault::KeyNotFound { id: id.clone() },
        Fault::KeyAmbiguous { id: id.clone(), count: 2 },
        Fault::KeyExists { id: id.clone(), label: reason.clone() },
        Fault::PublicKeyUnreadable { id: id.clone(), reason: reason.clone() },
        Fault::PublicKeyMismatch { id: id.clone() },
        Fault::Attribute { id, attribute: "CKA_LOCAL".into(), expected: true, found: Some(false) },
        Fault::KeyUndeclared { index: 1 },
        Fault::SignatureLength { expected: 64, found: 63 },
        Fault::Expired,
        Fault::Call { function: "Sign".into(), rv: "DeviceError".into(), class: RvClass::Device },
    ]
}

fn reports() -> Vec<Report> {
    let attributes = Attributes { local: Some(true), copyable: Some(false), ..Attributes::default() };
    let mut reports = vec![
        Report::Ready {
            serial: "s".into(),
            manufacturer: "m".into(),
            model: "SoftHSM v2".into(),
            sessions: 2,
        },
        Report::Key { index: 3, outcome: Ok(attributes) },
        Report::Key { index: 3, outcome: Err(Fault::PinLocked) },
        Report::Signed { id: 1, session: 2, waited_micros: 3, took_micros: 4, signature: vec![5; 70] },
        Report::Keys {
            id: 9,
            keys: vec![TokenKey { id: vec![1], label: "x".into(), spki: None, attributes }],
        },
        Report::Event(Event::Reopened),
        Report::Event(Event::LoggedIn { epoch: 4 }),
        Report::Event(Event::CallFailed { function: "Sign".into(), rv: "GeneralError".into() }),
    ];
    reports.extend(faults().into_iter().map(|fault| Report::Refused { id: 8, fault }));
    reports.extend(faults().into_iter().map(|fault| Report::Failed { fault }));
    reports
}

#[test]
fn everything_comes_back_as_it_was_sent() {
    let mut octets = Vec::new();
    for request in requests() {
        request.encode(&mut octets);
    }
    let mut splitter = Splitter::default();
    splitter.extend(&octets);
    for request in requests() {
        assert_eq!(Request::decode(splitter.next().unwrap().unwrap()).unwrap(), request);
    }
    assert_eq!(splitter.next().unwrap(), None);

    octets.clear();
    for report in reports() {
        report.encode(&mut octets);
    }
    splitter.extend(&octets);
    for report in reports() {
        assert_eq!(Report::decode(splitter.next().unwrap().unwrap()).unwrap(), report);
    }
    assert_eq!(splitter.next().unwrap(), None);
}

#[test]
fn frames_may_arrive_octet_by_octet() {
    let mut octets = Vec::new();
    for report in reports() {
        report.encode(&mut octets);
    }
    let (mut splitter, mut seen) = (Splitter::default(), Vec::new());
    for octet in octets {
        splitter.extend(&[octet]);
        while let Some(frame) = splitter.next().unwrap() {
            seen.push(Report::decode(frame).unwrap());
        }
    }
    assert_eq!(seen, reports());
}

#[test]
fn truncated_extended_and_foreign_frames_are_refused() {
    for request in requests() {
        let mut octets = Vec::new();
        request.encode(&mut octets);
        let body = &octets[4..];
        for end in 0..body.len() {
            assert!(Request::decode(&body[..end]).is_err(), "{request:?} cut at {end}");
        }
        assert!(Request::decode(&[body, &[0]].concat()).is_err());
        let mut other_version = body.to_vec();
        other_version[0] = VERSION + 1;
        assert_eq!(Request::decode(&other_version), Err(Malformed("version")));
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_it_is_read() {
    let mut splitter = Splitter::default();
    splitter.extend(&u32::try_from(FRAME_MAX + 1).unwrap().to_le_bytes());
    assert_eq!(splitter.next(), Err(Malformed("length")));
    let mut splitter = Splitter::default();
    splitter.extend(&1_u32.to_le_bytes());
    assert_eq!(splitter.next(), Err(Malformed("length")));
}
