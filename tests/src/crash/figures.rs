//! The columns of the table.

use std::collections::BTreeSet;
use std::fmt;

use super::people::Seen;
use super::wire;
use crate::faults::Stream;

/// What became of messages in both directions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Messages that their senders' servers have taken.
    pub sent: usize,
    /// Of these, those that the bridge had, and that were shown to nobody.
    pub lost: usize,
    /// Messages that were shown a second time.
    pub twice: usize,
    /// What a client, or the bridge, could not open although it had not seen it before.
    pub undecryptable: usize,
    /// Messages that were shown behind one that was sent later.
    pub reordered: usize,
    /// Keys that encrypted a second text: Megolm session and index, or OMEMO ratchet key and number.
    pub reused: usize,
    /// Stanzas that reached Bob again, byte for byte, and that his ratchet refused.
    pub repeats: usize,
    /// Stanzas of Bob's that his server gave back, because no bridge was there.
    pub bounced: usize,
    /// Stanzas of Bob's that lay in the socket of a process that had died. XEP-0114 acknowledges nothing, so his server
    /// takes them for delivered, and Bob has no receipt.
    pub left: usize,
}

/// How much had happened when a count began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Mark {
    pub(super) from_alice: usize,
    pub(super) from_bob: usize,
    at_alice: usize,
    at_bob: usize,
    unreadable_at_alice: usize,
    unreadable_at_bob: usize,
}

impl Mark {
    pub(super) fn now(from_alice: usize, from_bob: usize, seen: &Seen) -> Self {
        Self {
            from_alice,
            from_bob,
            at_alice: seen.at_alice.len(),
            at_bob: seen.at_bob.len(),
            unreadable_at_alice: seen.unreadable_at_alice,
            unreadable_at_bob: seen.unreadable_at_bob.len(),
        }
    }
}

impl Figures {
    /// The heading of the table.
    pub const HEADING: &str =
        "  sent  lost  twice  undecryptable  reordered  key reuse | repeats  bounced  in socket";

    /// Counts what has happened since a mark. Everything has to have come to rest.
    pub(super) fn count(
        mark: &Mark,
        sent_by_alice: usize,
        sent_by_bob: &[String],
        seen: &Seen,
        streams: &[Stream],
    ) -> Self {
        let at_bob = seen.at_bob.get(mark.at_bob..).unwrap_or_default();
        let at_alice = seen.at_alice.get(mark.at_alice..).unwrap_or_default();
        let (shown_to_bob, shown_to_alice) = (set(at_bob), set(at_alice));
        let unreadable = seen.unreadable_at_bob.get(mark.unreadable_at_bob..).unwrap_or_default();
        let is_repeat = |stanza: &&String| seen.opened_at_bob.contains(*stanza);
        let repeats = unreadable.iter().filter(is_repeat).count();
        let mut figures = Self {
            sent: sent_by_alice - mark.from_alice + sent_by_bob.len() - mark.from_bob,
            lost: (mark.from_alice..sent_by_alice).filter(|it| !shown_to_bob.contains(it)).count(),
            twice: repeated(&seen.at_bob, mark.at_bob) + repeated(&seen.at_alice, mark.at_alice),
            undecryptable: unreadable.len() - repeats + seen.unreadable_at_alice
                - mark.unreadable_at_alice,
            reordered: overtaken(at_bob) + overtaken(at_alice),
            repeats,
            ..Self::default()
        };
        let passed = passed(streams, sent_by_bob, seen);
        let bobs = sent_by_bob.iter().enumerate().skip(mark.from_bob);
        for (_, stanza) in bobs.filter(|(number, _)| !shown_to_alice.contains(number)) {
            if seen.receipts.contains(stanza) || passed.contains(stanza) {
                figures.lost += 1;
            } else if seen.bounces.contains(stanza) {
                figures.bounced += 1;
            } else {
                figures.left += 1;
            }
        }
        figures
    }

    /// Whether every figure is zero that must be.
    pub fn is_good(&self) -> bool {
        let Self { lost, twice, undecryptable, reordered, reused, .. } = self;
        [lost, twice, undecryptable, reordered, reused].into_iter().all(|figure| *figure == 0)
    }

    /// Adds those of another count.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.twice += other.twice;
        self.undecryptable += other.undecryptable;
        self.reordered += other.reordered;
        self.reused += other.reused;
        self.repeats += other.repeats;
        self.bounced += other.bounced;
        self.left += other.left;
    }
}

/// A row of the table.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, twice, undecryptable, reordered, reused, repeats, bounced, left } =
            self;
        write!(
            f,
            "{sent:>6}{lost:>6}{twice:>7}{undecryptable:>15}{reordered:>11}{reused:>11} |\
             {repeats:>8}{bounced:>9}{left:>11}"
        )
    }
}

fn set(numbers: &[usize]) -> BTreeSet<usize> {
    numbers.iter().copied().collect()
}

/// How many, from a place on, were shown before.
fn repeated(shown: &[usize], from: usize) -> usize {
    let mut known = BTreeSet::new();
    let again = shown.iter().enumerate().filter(|(_, number)| !known.insert(**number));
    again.filter(|(place, _)| *place >= from).count()
}

/// How many come behind a later one, the first time.
fn overtaken(shown: &[usize]) -> usize {
    let (mut latest, mut known, mut count) = (None, BTreeSet::new(), 0);
    for number in shown {
        let is_first = known.insert(number);
        count += usize::from(is_first && latest.is_some_and(|latest| latest > number));
        latest = latest.max(Some(number));
    }
    count
}

/// The stanzas of Bob's that the bridge must have read, because it took a later one of the same stream.
fn passed(streams: &[Stream], sent: &[String], seen: &Seen) -> BTreeSet<String> {
    let shown: BTreeSet<&String> =
        seen.at_alice.iter().filter_map(|number| sent.get(*number)).collect();
    let sent: BTreeSet<&str> = sent.iter().map(String::as_str).collect();
    let mut passed = BTreeSet::new();
    for stream in streams {
        let messages = wire::messages(&stream.to_bridge);
        let bobs = messages.iter().filter_map(|it| it.attr("id")).filter(|id| sent.contains(id));
        let mut before = Vec::new();
        for id in bobs.map(str::to_owned) {
            let is_taken = seen.receipts.contains(&id) || shown.contains(&id);
            before.push(id);
            if is_taken {
                passed.extend(before.drain(..));
            }
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(ids: &[&str]) -> Stream {
        let text: String =
            ids.iter().map(|id| format!("<message id='{id}'/ ></message>")).collect();
        Stream { to_bridge: text.replace("/ >", ">").into_bytes(), ..Stream::default() }
    }

    fn count(sent: &[&str], seen: &Seen, streams: &[Stream]) -> Figures {
        let sent: Vec<_> = sent.iter().map(|&id| id.to_owned()).collect();
        Figures::count(&Mark::default(), 2, &sent, seen, streams)
    }

    #[test]
    fn a_stanza_is_left_in_the_socket_only_behind_all_that_was_taken() {
        let seen = Seen {
            at_bob: vec![0, 1],
            at_alice: vec![0, 2],
            bounces: ["d".to_owned()].into(),
            ..Seen::default()
        };
        let sent = ["a", "b", "c", "d", "e"];
        let figures = count(&sent, &seen, &[stream(&["a", "b", "c", "e"])]);
        let expected = Figures { sent: 7, lost: 1, bounced: 1, left: 1, ..Figures::default() };
        assert_eq!(figures, expected, "b was read before c");
        let figures = count(&sent, &seen, &[stream(&["a", "b"]), stream(&["c", "e"])]);
        assert_eq!((figures.lost, figures.left), (0, 2), "b was the last of its stream");
    }

    #[test]
    fn each_figure_counts_what_it_says() {
        let seen = Seen {
            at_bob: vec![1, 0, 1],
            at_alice: vec![0],
            unreadable_at_bob: vec!["again".to_owned(), "never".to_owned()],
            opened_at_bob: ["again".to_owned()].into(),
            receipts: ["a".to_owned(), "b".to_owned()].into(),
            ..Seen::default()
        };
        let figures = count(&["a", "b"], &seen, &[]);
        let expected = Figures {
            sent: 4,
            lost: 1,
            twice: 1,
            undecryptable: 1,
            reordered: 1,
            repeats: 1,
            ..Figures::default()
        };
        assert_eq!(figures, expected);
        assert!(!figures.is_good());
    }
}
