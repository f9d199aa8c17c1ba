//! `cargo xtask safety`: what must hold against adversaries, by which test, and with which figure.
//!
//! The lines stand in [`lines`]. Each names a test, and the test prints its figure: a line `safety: <figure>: <words>`.
//! Only those tests are run. A line fails when its test fails, did not run or printed no figure.

mod lines;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use minidom::Element;

use crate::install;
use crate::postgres::Postgres;
use crate::shell::{announce, cargo, find_program, run, workspace};
use crate::test::Tested;
use lines::{Claim, LINES, Line};

/// The profile of nextest that keeps what tests print.
const PROFILE: &str = "safety";

/// How long what the bridge needs of its machine is away; in `cargo xtask test` it is shorter.
const OUTAGE_SECONDS: &str = "120";

/// What a test said and how it ended.
struct Outcome {
    passed: bool,
    figures: BTreeMap<String, String>,
}

type Outcomes = BTreeMap<String, Outcome>;

/// Runs the tests and prints the table.
///
/// # Errors
/// When a line that must hold does not.
pub fn safety() -> Result<()> {
    ensure!(
        find_program("cargo-nextest").is_some(),
        "cargo-nextest is needed for this; `cargo install cargo-nextest --locked` installs it"
    );
    install::install(&install::EVERYTHING)?;
    announce("Building the bridge");
    let tested = Tested::build()?;
    // nextest keeps it there, wherever Cargo builds.
    let report = workspace().join("target/nextest").join(PROFILE).join("junit.xml");
    if report.exists() {
        fs::remove_file(&report).context("removing the last report")?;
    }
    announce("Starting PostgreSQL");
    let postgres = Postgres::start()?;
    announce("Running the tests");
    let mut tests = cargo();
    tests.args(["nextest", "run", "--workspace", "--profile", PROFILE, "-E", &expression()]);
    // A failed test is a line of the table.
    tested.name_in(&mut tests).env("GEPHYRA_TEST_POSTGRES", postgres.url());
    tests.env("GEPHYRA_OUTAGE_SECONDS", OUTAGE_SECONDS);
    let ran = run(&mut tests);
    if !report.exists() {
        ran?;
    }
    let outcomes = read_report(&report)?;
    let failed = print(&outcomes);
    if failed > 0 {
        bail!("{failed} lines do not hold");
    }
    Ok(())
}

/// The tests of all lines, for nextest.
fn expression() -> String {
    let tests = LINES.iter().map(|line| match line.test.split_once(' ') {
        Some((binary, test)) => format!("(binary_id(={binary}) & test(={test}))"),
        None => "none()".to_owned(),
    });
    tests.collect::<Vec<_>>().join(" | ")
}

fn read_report(file: &Path) -> Result<Outcomes> {
    // JUnit's report has no XML namespace, and minidom wants one.
    const NAMESPACE: &str = "junit";
    let text = fs::read_to_string(file).context("reading the report of the tests")?;
    let prefixes = BTreeMap::from([(None, NAMESPACE.to_owned())]);
    let report = Element::from_reader_with_prefixes(text.as_bytes(), prefixes)?;
    let mut outcomes = Outcomes::new();
    for suite in report.children() {
        let binary = name_of(suite);
        for case in suite.children().filter(|child| child.name() == "testcase") {
            let test = name_of(case);
            let passed =
                !case.has_child("failure", NAMESPACE) && !case.has_child("error", NAMESPACE);
            let printed = case.get_child("system-out", NAMESPACE).map(Element::text);
            let figures = figures_in(&printed.unwrap_or_default());
            outcomes.insert(format!("{binary} {test}"), Outcome { passed, figures });
        }
    }
    Ok(outcomes)
}

fn name_of(element: &Element) -> &str {
    let mut attributes = element.attrs().iter();
    let name = attributes.find(|((_, name), _)| name.as_str() == "name");
    name.map_or("", |(_, value)| value)
}

fn figures_in(printed: &str) -> BTreeMap<String, String> {
    let lines = printed.lines().filter_map(|line| line.strip_prefix("safety: "));
    let pairs = lines.filter_map(|line| line.split_once(": "));
    pairs.map(|(figure, words)| (figure.to_owned(), words.to_owned())).collect()
}

/// What is said of a line, and whether it is as the line claims.
fn judge(line: &Line, outcomes: &Outcomes) -> (String, &'static str, bool) {
    let Some(outcome) = outcomes.get(line.test) else {
        return ("its test did not run".to_owned(), "FAILS", false);
    };
    if !outcome.passed {
        return ("its test failed".to_owned(), "FAILS", false);
    }
    match (outcome.figures.get(line.figure), line.claim) {
        (None, _) => ("its test printed no figure".to_owned(), "FAILS", false),
        (Some(words), Claim::Holds) => (words.clone(), "yes", true),
        (Some(words), Claim::CannotHold(reason)) => (format!("{words}; {reason}"), "no", true),
        (Some(words), Claim::Control) => (words.clone(), "ctrl", true),
    }
}

/// Prints the table; gives the number of lines that are not as they claim.
fn print(outcomes: &Outcomes) -> usize {
    let mut failed = 0;
    let mut group = "";
    for line in LINES {
        if line.group != group {
            group = line.group;
            println!("\n{group}");
        }
        let (words, holds, is_as_claimed) = judge(line, outcomes);
        failed += usize::from(!is_as_claimed);
        let test = line.test.rsplit(' ').next().unwrap_or_default();
        println!("  {holds:<5} {}\n        {words}\n        {test}", line.requirement);
    }
    let count = |wanted: Claim| LINES.iter().filter(|line| line.claim == wanted).count();
    let (hold, control) = (count(Claim::Holds), count(Claim::Control));
    println!(
        "\n{} lines: {hold} must hold, {} cannot, {control} show that others can fail (ctrl); \
         {failed} are not as they should be",
        LINES.len(),
        LINES.len() - hold - control
    );
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(passed: bool, printed: &str) -> Outcomes {
        let outcome = Outcome { passed, figures: figures_in(printed) };
        BTreeMap::from([("tests::flows a::story".to_owned(), outcome)])
    }

    const LINE: Line = Line {
        group: "Replay",
        requirement: "it is bridged once",
        test: "tests::flows a::story",
        figure: "replays",
        claim: Claim::Holds,
    };

    #[test]
    fn a_line_holds_only_with_a_test_that_passed_and_a_figure() {
        let said = "noise\nsafety: replays: bridged 1 time\nsafety: other: 2";
        assert_eq!(judge(&LINE, &outcomes(true, said)), ("bridged 1 time".to_owned(), "yes", true));
        for missing in [outcomes(false, said), outcomes(true, "noise"), Outcomes::new()] {
            let (_, holds, is_as_claimed) = judge(&LINE, &missing);
            assert_eq!((holds, is_as_claimed), ("FAILS", false));
        }
        let control = Line { claim: Claim::Control, ..LINE };
        assert_eq!(judge(&control, &outcomes(true, said)).1, "ctrl");
        assert!(!judge(&control, &outcomes(false, said)).2, "the other line's test cannot fail");
        let cannot = Line { claim: Claim::CannotHold("because"), ..LINE };
        let (words, holds, is_as_claimed) = judge(&cannot, &outcomes(true, said));
        assert_eq!((words.as_str(), holds, is_as_claimed), ("bridged 1 time; because", "no", true));
        assert!(!judge(&cannot, &outcomes(false, said)).2, "what it shows must still be true");
    }

    #[test]
    fn a_report_of_nextest_is_read() {
        let dir = std::env::temp_dir().join(format!("gephyra-junit-{}", std::process::id()));
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
            <testsuites name="nextest-run" tests="2"><testsuite name="tests::flows" tests="2">
            <testcase name="a::story" classname="tests::flows" time="1">
            <system-out>running 1 test
safety: replays: bridged 1 time
</system-out></testcase>
            <testcase name="b::story" classname="tests::flows" time="1"><failure message="m"/>
            </testcase></testsuite></testsuites>"#;
        fs::write(&dir, report).unwrap();
        let outcomes = read_report(&dir).unwrap();
        fs::remove_file(&dir).unwrap();
        assert_eq!(judge(&LINE, &outcomes).1, "yes");
        assert!(!outcomes["tests::flows b::story"].passed);
    }

    #[test]
    fn each_line_names_its_test_and_its_own_figure() {
        let mut seen = std::collections::BTreeSet::new();
        for line in LINES {
            assert!(line.test.contains(' '), "{}: binary and test", line.requirement);
            assert!(seen.insert(line.figure), "{} stands twice", line.figure);
        }
    }
}
