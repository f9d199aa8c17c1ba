//! Transactions that the homeserver has forgotten to send.
//!
//! The highest number is stored with the events, so a gap that arose while we were away is seen at
//! the first transaction after the start.
//!
//! Synapse numbers its transactions one by one. When it recovers after we were away, a transaction
//! made in the moment between "nothing is left" and "the application service is up" stays in its
//! database until the next failure, and later ones overtake it (measured with 1.163.2). So the
//! first transactions after a gap are refused once: the homeserver then starts over with the oldest
//! that it has. A gap can also be another application service's transaction, for they share the
//! numbers, so this is done a few times after each absence and no more.

use std::sync::{Mutex, PoisonError};

/// Refusals after each absence. One costs the homeserver about two seconds.
const REFUSALS: u8 = 3;

/// Watches the numbers of transactions.
pub(super) struct Gaps(Mutex<State>);

struct State {
    highest: Option<u64>,
    refused: Option<u64>,
    refusals_left: u8,
}

impl Gaps {
    /// The state after an absence, in which `highest` was the last number that was committed.
    pub fn new(highest: Option<u64>) -> Self {
        Self(Mutex::new(State { highest, refused: None, refusals_left: REFUSALS }))
    }

    /// Whether a transaction may be taken now. An id that is no number always may.
    pub fn admits(&self, txn_id: &str) -> bool {
        let Ok(number) = txn_id.parse::<u64>() else { return true };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_gap = state.highest.is_some_and(|highest| number > highest.saturating_add(1));
        if is_gap && state.refused != Some(number) && state.refusals_left > 0 {
            state.refused = Some(number);
            state.refusals_left -= 1;
            return false;
        }
        state.highest = state.highest.max(Some(number));
        true
    }

    /// The homeserver was told to come again, and will recover again.
    pub fn absent(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refusals_left = REFUSALS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transaction_after_a_gap_is_refused_until_the_missing_one_has_come() {
        let gaps = Gaps::new(None);
        assert!(gaps.admits("265"));
        assert!(!gaps.admits("267"));
        assert!(gaps.admits("266"), "the forgotten one comes first now");
        assert!(gaps.admits("267"));
        assert!(gaps.admits("266"), "an old one is no gap");
    }

    #[test]
    fn a_gap_that_arose_while_we_were_away_is_seen_at_once() {
        let gaps = Gaps::new(Some(265));
        assert!(!gaps.admits("267"));
        assert!(gaps.admits("266"), "the forgotten one comes first now");
        assert!(gaps.admits("267"));
        assert!(Gaps::new(Some(265)).admits("266"));
    }

    #[test]
    fn a_gap_that_nothing_fills_holds_up_each_transaction_once_and_only_a_few_times() {
        let gaps = Gaps::new(None);
        assert!(gaps.admits("1"));
        for number in ["3", "5", "7"] {
            assert!(!gaps.admits(number));
            assert!(gaps.admits(number));
        }
        assert!(gaps.admits("9"));
        gaps.absent();
        assert!(!gaps.admits("11"));
    }

    #[test]
    fn ids_that_are_no_numbers_are_always_taken() {
        let gaps = Gaps::new(None);
        assert!(gaps.admits("m1700000000000.1"));
        assert!(gaps.admits("m1700000000000.9"));
        assert!(gaps.admits("18446744073709551615"));
    }
}
