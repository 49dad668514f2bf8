//! True counts out of what test runners say.

use std::fmt;
use std::ops::AddAssign;

/// How many tests did what.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run, each with a reason in words.
    pub skipped: u64,
}

impl Counts {
    /// One test.
    pub fn one(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: 0 }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// How a step says what it found.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// By its exit status: one test.
    Status,
    /// `test result: ok. N passed; M failed; K ignored; …`, once for each test program.
    Libtest,
    /// A last line `N passed, M failed`.
    Closing,
}

impl Reading {
    /// Counts what a step said. A step that failed without a failed test, or that ran none, is itself a failed test.
    pub fn counts(self, success: bool, words: &str) -> Counts {
        let mut counts = match self {
            Self::Status => return Counts::one(success),
            Self::Libtest => {
                let mut sum = Counts::default();
                words.lines().filter_map(libtest).for_each(|counts| sum += counts);
                sum
            }
            Self::Closing => words.lines().rev().find_map(closing).unwrap_or_default(),
        };
        if counts.failed == 0 && (!success || counts.passed == 0) {
            counts.failed = 1;
        }
        counts
    }
}

fn libtest(line: &str) -> Option<Counts> {
    let (_, rest) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
    let mut numbers = rest.split("; ").map(|piece| piece.split_once(' '));
    let mut next = |word: &str| match numbers.next()?? {
        (number, name) if name == word => number.parse().ok(),
        _ => None,
    };
    Some(Counts { passed: next("passed")?, failed: next("failed")?, skipped: next("ignored")? })
}

fn closing(line: &str) -> Option<Counts> {
    let (passed, failed) = line.trim().split_once(" passed, ")?;
    let failed = failed.strip_suffix(" failed")?;
    Some(Counts { passed: passed.parse().ok()?, failed: failed.parse().ok()?, skipped: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(passed: u64, failed: u64, skipped: u64) -> Counts {
        Counts { passed, failed, skipped }
    }

    const LIBTEST: &str = "
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.08s
     Running tests/x.rs
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.08s
";

    #[test]
    fn the_totals_of_all_programs_are_added() {
        assert_eq!(Reading::Libtest.counts(false, LIBTEST), counts(7, 2, 1));
    }

    #[test]
    fn a_run_without_a_test_has_failed() {
        assert_eq!(Reading::Libtest.counts(true, ""), counts(0, 1, 0));
        let none =
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Reading::Libtest.counts(true, none), counts(0, 1, 0));
        assert_eq!(Reading::Closing.counts(true, "all is well"), counts(0, 1, 0));
    }

    #[test]
    fn a_compiler_error_is_a_failure_beside_the_tests_that_ran() {
        let ran =
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.08s";
        assert_eq!(Reading::Libtest.counts(false, ran), counts(3, 1, 0));
    }

    #[test]
    fn a_closing_line_counts() {
        assert_eq!(Reading::Closing.counts(true, "ok rows\n11 passed, 0 failed\n"), counts(11, 0, 0));
        assert_eq!(Reading::Closing.counts(false, "FAIL rows\n10 passed, 1 failed\n"), counts(10, 1, 0));
    }

    #[test]
    fn a_status_is_one_test() {
        assert_eq!(Reading::Status.counts(true, ""), counts(1, 0, 0));
        assert_eq!(Reading::Status.counts(false, ""), counts(0, 1, 0));
    }

    #[test]
    fn the_closing_line_is_the_plain_one() {
        assert_eq!(counts(7, 2, 1).to_string(), "7 passed, 2 failed, 1 skipped");
    }
}
