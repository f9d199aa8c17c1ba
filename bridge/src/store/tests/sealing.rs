//! Sealed cells and key files.

use std::{fs, os::unix::fs::PermissionsExt as _};

use assert_matches::assert_matches;
use rand_core::OsRng;

use crate::store::{Cell, SealError, Sealer, StoreError, StoreKey, StoreKeyError};

const CELL: Cell<'_> = Cell { table: "letters", column: "text", row: &["7"] };

fn sealer(byte: u8) -> Sealer {
    Sealer::new(&StoreKey::from_bytes([byte; 32])).expect("a key of 32 bytes")
}

fn reason(result: Result<impl Sized, StoreError>) -> SealError {
    match result {
        Err(StoreError::Sealed { source, .. }) => source,
        _ => panic!("the cell opened"),
    }
}

#[test]
fn a_sealed_cell_opens_in_its_place_only() {
    let sealer = sealer(1);
    let sealed = sealer.seal(CELL, b"hello").unwrap();
    assert_eq!(*sealer.open(CELL, &sealed).unwrap(), b"hello");

    for elsewhere in [
        Cell { table: "lettersx", ..CELL },
        Cell { column: "texts", ..CELL },
        Cell { row: &["8"], ..CELL },
        Cell { row: &["7", ""], ..CELL },
        Cell { row: &[], ..CELL },
        Cell { table: "letter", column: "stext", ..CELL },
    ] {
        assert_eq!(reason(sealer.open(elsewhere, &sealed)), SealError::NotAuthentic);
    }
}

#[test]
fn another_key_opens_nothing() {
    let sealed = sealer(1).seal(CELL, b"hello").unwrap();
    assert_eq!(reason(sealer(2).open(CELL, &sealed)), SealError::NotAuthentic);
}

#[test]
fn an_altered_cell_does_not_open() {
    let sealer = sealer(1);
    let sealed = sealer.seal(CELL, b"hello").unwrap();
    for index in 1..sealed.len() {
        let mut altered = sealed.clone();
        altered[index] ^= 1;
        assert_eq!(reason(sealer.open(CELL, &altered)), SealError::NotAuthentic);
    }
    let mut newer = sealed.clone();
    newer[0] = 2;
    assert_eq!(reason(sealer.open(CELL, &newer)), SealError::UnknownVersion(2));
    assert_eq!(reason(sealer.open(CELL, &sealed[..24])), SealError::Truncated);
    assert_eq!(reason(sealer.open(CELL, &sealed[..40])), SealError::NotAuthentic);
    assert_eq!(reason(sealer.open(CELL, &[])), SealError::Truncated);
}

#[test]
fn equal_values_do_not_look_equal() {
    let sealer = sealer(1);
    assert_ne!(sealer.seal(CELL, b"hello").unwrap(), sealer.seal(CELL, b"hello").unwrap());
}

#[test]
fn a_blinded_value_is_the_same_for_its_key_and_place_only() {
    let here = sealer(1).blind(CELL).unwrap();
    assert_eq!(here, sealer(1).blind(CELL).unwrap());
    assert_ne!(here, sealer(2).blind(CELL).unwrap());
    assert_ne!(here, sealer(1).blind(Cell { row: &["8"], ..CELL }).unwrap());
    assert_ne!(here, sealer(1).blind(Cell { column: "other", ..CELL }).unwrap());
}

#[test]
fn a_key_file_is_private_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.key");
    let key = StoreKey::write_new(&path, &mut OsRng).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
    assert_eq!(StoreKey::load(&path).unwrap().as_bytes(), key.as_bytes());
    assert_matches!(StoreKey::write_new(&path, &mut OsRng), Err(StoreKeyError::Write(_)));
    assert_eq!(StoreKey::load(&path).unwrap().as_bytes(), key.as_bytes());
    assert_eq!(format!("{key:?}"), "StoreKey(…)");
}

#[test]
fn an_open_or_misshapen_key_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.key");
    let write = |bytes: &[u8], mode| {
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_matches!(StoreKey::load(&path), Err(StoreKeyError::Read(_)));
    write(&[7; 32], 0o440);
    assert_matches!(StoreKey::load(&path), Ok(_));
    for mode in [0o644, 0o604, 0o660, 0o601] {
        write(&[7; 32], mode);
        assert_matches!(StoreKey::load(&path), Err(StoreKeyError::TooOpen { mode: m }) if m == mode);
    }
    for length in [0, 31, 33, 64] {
        write(&vec![7; length], 0o600);
        assert_matches!(StoreKey::load(&path), Err(StoreKeyError::WrongSize));
    }
}
