//! Dies where it is told to.
//!
//! The variable `FAILPOINT_FILE` names a file. While there is none nothing happens. A file with the line
//! `POINT NTH WAIT_MS` is an order: when the process comes to that point for the `NTH` time since it began to obey, it
//! waits, takes the file away and kills itself. So whoever wrote the file knows by its absence where the process died.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Signal, getpid, kill_process};

/// All places.
pub(crate) const POINTS: [&str; 26] = [
    "w01_transaction_received",
    "w01_stanza_received",
    "w02_transaction_committed",
    "w02_stanza_committed",
    "w03_transaction_answered",
    "w03_stanza_pending",
    "w03_remote_event_pending",
    "w04_event_decrypted",
    "w04_stanza_decrypted",
    "w05_index_committed",
    "w05_ratchet_committed",
    "w05_machine_changed",
    "w05_machine_committed",
    "w06_stanza_encrypted",
    "w06_stanza_committed",
    "w06_event_encrypted",
    "w06_event_committed",
    "w07_event_sent",
    "w08_room_key_sent",
    "w09_keys_uploaded",
    "w09_identity_uploaded",
    "w09_keys_claimed",
    "w10_stanza_written",
    "w10_stanza_confirmed",
    "w11_stanza_read",
    "w12_prekey_used",
];

/// Obeys the file from now on.
pub(crate) fn arm() {
    let Some(file) = std::env::var_os("FAILPOINT_FILE") else { return };
    let killer = Arc::new(Killer { file: file.into(), obeyed: Mutex::default() });
    for point in POINTS {
        let killer = killer.clone();
        // The only error is an action that cannot be read, and a callback is none.
        let _ = fail::cfg_callback(point, move || killer.come_to(point));
    }
    tracing::warn!("failpoints.armed: this build is for tests");
}

struct Killer {
    file: PathBuf,
    /// The order, and how often its point was met.
    obeyed: Mutex<(String, u32)>,
}

struct Order<'a> {
    point: &'a str,
    nth: u32,
    wait: Duration,
}

impl<'a> Order<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (point, nth, wait_ms) = (words.next()?, words.next()?, words.next()?);
        let wait = Duration::from_millis(wait_ms.parse().ok()?);
        Some(Self { point, nth: nth.parse().ok()?, wait })
    }
}

impl Killer {
    fn come_to(&self, point: &str) {
        let Ok(line) = fs::read_to_string(&self.file) else { return };
        let Some(order) = Order::parse(&line).filter(|order| order.point == point) else { return };
        if self.count(&line) < order.nth {
            return;
        }
        thread::sleep(order.wait);
        if fs::remove_file(&self.file).is_ok() {
            die();
        }
    }

    /// How often the point of this order was met, with this time.
    fn count(&self, line: &str) -> u32 {
        let mut obeyed = self.obeyed.lock().unwrap_or_else(PoisonError::into_inner);
        if obeyed.0 != line {
            *obeyed = (line.to_owned(), 0);
        }
        obeyed.1 = obeyed.1.saturating_add(1);
        obeyed.1
    }
}

/// Ends the process with no chance to tidy up.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}
