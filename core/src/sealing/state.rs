//! A sector's life as a table of transitions: pure, total, readable.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, sql_types::Text};

use crate::fleet::protocol::FailureLevel;
use crate::stored_as_text;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum SectorState {
    /// Bought, waiting for a ticket and a machine.
    Planned,
    PreCommit1,
    PreCommit2,
    /// The PreCommit message is on its way.
    PreCommitting,
    /// PreCommit landed; the seed has not been drawn yet.
    WaitSeed,
    Commit1,
    Commit2,
    /// The proof is ready; we verify it before spending gas on it.
    Verifying,
    /// The ProveCommit message is on its way.
    ProveCommitting,
    /// On chain; the big files are being deleted.
    Finalizing,
    /// On chain, without power until its first WindowPoSt.
    Proving,
    /// On chain, with power.
    Active,
    /// On chain, and the chain counts it as faulty.
    Faulty,
    /// Ended on time, or not sealed before its contract's term was over.
    Expired,
    /// Failed too often; a person decides.
    Quarantined,
}

stored_as_text!(SectorState {
    Planned => "planned",
    PreCommit1 => "pre_commit_1",
    PreCommit2 => "pre_commit_2",
    PreCommitting => "pre_committing",
    WaitSeed => "wait_seed",
    Commit1 => "commit_1",
    Commit2 => "commit_2",
    Verifying => "verifying",
    ProveCommitting => "prove_committing",
    Finalizing => "finalizing",
    Proving => "proving",
    Active => "active",
    Faulty => "faulty",
    Expired => "expired",
    Quarantined => "quarantined",
});

impl SectorState {
    /// True until activation: the planner schedules such sectors.
    #[must_use]
    pub const fn is_sealing(self) -> bool {
        !self.is_on_chain() && !matches!(self, Self::Expired | Self::Quarantined)
    }

    /// True from activation until the sector ends on chain.
    #[must_use]
    pub const fn is_on_chain(self) -> bool {
        matches!(
            self,
            Self::Finalizing | Self::Proving | Self::Active | Self::Faulty
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    TicketDrawn,
    PreCommit1Done,
    PreCommit2Done,
    PreCommitLanded,
    SeedDrawn,
    Commit1Done,
    Commit2Done,
    /// The ticket is too old for a PreCommit to land.
    TicketExpired,
    ProofVerified,
    ProofRejected,
    ProveCommitLanded,
    /// The chain was reorganised and no longer has the PreCommit.
    PreCommitLost,
    /// The chain was reorganised: the seed changed, perhaps because the PreCommit landed at another
    /// epoch.
    SeedMoved,
    /// The chain was reorganised and no longer has the sector.
    ActivationLost,
    /// The chain has another replica's sector under this number.
    NumberTaken,
    Finalized,
    PowerOn,
    FaultSeen,
    RanOut,
    /// A step failed. `failures` includes this failure; `machines` counts the machines on which the
    /// sector itself failed.
    StepFailed {
        level: FailureLevel,
        failures: i64,
        machines: i64,
        /// The step needs the sector's files, which are on the machine that failed.
        needs_files: bool,
    },
    /// A message failed on chain, or was given up.
    MessageFailed {
        failures: i64,
    },
    /// The machine with the sector's files is gone.
    MachineLost,
    /// A person lets a quarantined sector start again.
    Released,
    /// The contract's term was over before the sector was sealed.
    TermOver,
}

/// A sector is quarantined after this many failures.
pub const MOST_FAILURES: i64 = 5;
/// A sector that fails on this many machines is itself at fault.
pub const MOST_MACHINES: i64 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    To(SectorState),
    /// The same step again; `Elsewhere` avoids the machine that failed.
    Retry(Where),
    /// The event means nothing in this state (a late or repeated report).
    Ignore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    Anywhere,
    Elsewhere,
}

/// The transition that follows from an event.
#[must_use]
pub fn next(state: SectorState, event: Event) -> Transition {
    use SectorState as S;
    use Transition::{Ignore, To};
    match (state, event) {
        (S::Planned, Event::TicketDrawn) => To(S::PreCommit1),
        (S::PreCommit1, Event::PreCommit1Done) => To(S::PreCommit2),
        (S::PreCommit2, Event::PreCommit2Done) => To(S::PreCommitting),
        (S::PreCommitting, Event::PreCommitLanded) => To(S::WaitSeed),
        (S::PreCommit1 | S::PreCommit2 | S::PreCommitting, Event::TicketExpired) => To(S::Planned),
        (S::WaitSeed, Event::SeedDrawn) => To(S::Commit1),
        (S::Commit1, Event::Commit1Done) => To(S::Commit2),
        (S::Commit2, Event::Commit2Done) => To(S::Verifying),
        (S::Verifying, Event::ProofVerified) => To(S::ProveCommitting),
        (S::Verifying, Event::ProofRejected) => To(S::Commit1),
        // After a restored backup or a lost reply the chain may be ahead of our books.
        (
            S::PreCommitting
            | S::WaitSeed
            | S::Commit1
            | S::Commit2
            | S::Verifying
            | S::ProveCommitting,
            Event::ProveCommitLanded,
        ) => To(S::Finalizing),
        (
            S::WaitSeed | S::Commit1 | S::Commit2 | S::Verifying | S::ProveCommitting,
            Event::PreCommitLost,
        ) => To(S::PreCommitting),
        (S::Commit1 | S::Commit2 | S::Verifying | S::ProveCommitting, Event::SeedMoved) => {
            To(S::WaitSeed)
        }
        (S::Finalizing | S::Proving | S::Active | S::Faulty, Event::ActivationLost) => {
            To(S::ProveCommitting)
        }
        (_, Event::NumberTaken) if state.is_sealing() => To(S::Planned),
        (S::Finalizing, Event::Finalized) => To(S::Proving),
        (S::Proving | S::Faulty, Event::PowerOn) => To(S::Active),
        // A machine that cannot delete files cannot prove sectors either.
        (S::Active | S::Proving | S::Finalizing, Event::FaultSeen) => To(S::Faulty),
        (S::Active | S::Proving | S::Finalizing | S::Faulty, Event::RanOut) => To(S::Expired),
        (S::Quarantined, Event::Released) => To(S::Planned),
        (
            _,
            Event::StepFailed {
                level,
                failures,
                machines,
                needs_files,
            },
        ) => step_failed(state, level, (failures, machines), needs_files),
        (_, Event::MessageFailed { failures }) => message_failed(state, failures),
        // Before PreCommit is sent, nothing ties the sector to its files. Once it has landed, its
        // ticket is on chain, and the same ticket gives the same replica on another machine. In
        // between we wait for the receipt. Activating a sector without its replica would cause a
        // fault from the first day on.
        (
            S::PreCommit1 | S::PreCommit2 | S::WaitSeed | S::Commit1 | S::Commit2 | S::Verifying,
            Event::MachineLost,
        ) => To(S::Planned),
        // With a ProveCommit on its way, the sector may already be on chain.
        (S::ProveCommitting, Event::TermOver) => Ignore,
        (_, Event::TermOver) if state.is_sealing() || state == S::Quarantined => To(S::Expired),
        _ => Ignore,
    }
}

fn step_failed(
    state: SectorState,
    level: FailureLevel,
    (failures, machines): (i64, i64),
    needs_files: bool,
) -> Transition {
    use SectorState as S;
    // A failed clean-up never ends a sector that is on chain. The clean-up is retried whatever the
    // chain says of the sector meanwhile.
    if state.is_on_chain() {
        return Transition::Retry(Where::Anywhere);
    }
    let running = matches!(
        state,
        S::PreCommit1 | S::PreCommit2 | S::Commit1 | S::Commit2
    );
    if !running {
        return Transition::Ignore;
    }
    if level == FailureLevel::Critical || failures >= MOST_FAILURES || machines >= MOST_MACHINES {
        return Transition::To(S::Quarantined);
    }
    match level {
        FailureLevel::Temporary => Transition::Retry(Where::Anywhere),
        // Another machine lacks the files and has to start from the beginning.
        FailureLevel::Permanent if needs_files => Transition::To(S::Planned),
        FailureLevel::Permanent => Transition::Retry(Where::Elsewhere),
        _ => Transition::To(S::Planned),
    }
}

const fn message_failed(state: SectorState, failures: i64) -> Transition {
    use SectorState as S;
    match state {
        S::PreCommitting | S::ProveCommitting if failures >= MOST_FAILURES => {
            Transition::To(S::Quarantined)
        }
        S::PreCommitting => Transition::Retry(Where::Anywhere),
        // The proof is verified again before it is sent again.
        S::ProveCommitting => Transition::To(S::Verifying),
        _ => Transition::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 18] = [
        Event::TicketDrawn,
        Event::PreCommit1Done,
        Event::PreCommit2Done,
        Event::PreCommitLanded,
        Event::SeedDrawn,
        Event::Commit1Done,
        Event::Commit2Done,
        Event::ProofVerified,
        Event::ProveCommitLanded,
        Event::Finalized,
        Event::PowerOn,
        Event::RanOut,
        Event::MachineLost,
        Event::Released,
        Event::TermOver,
        Event::PreCommitLost,
        Event::SeedMoved,
        Event::ActivationLost,
    ];

    #[test]
    fn the_happy_path_leads_from_planned_to_expired() {
        let mut state = SectorState::Planned;
        for event in &EVENTS[..12] {
            let Transition::To(to) = next(state, *event) else {
                panic!("{state:?} {event:?}")
            };
            state = to;
        }
        assert_eq!(state, SectorState::Expired);
    }

    #[test]
    fn a_repeated_or_late_report_changes_nothing() {
        for state in SectorState::ALL {
            for event in EVENTS {
                if let Transition::To(to) = next(state, event)
                    && !matches!(event, Event::MachineLost)
                {
                    assert_eq!(
                        next(to, event),
                        Transition::Ignore,
                        "{state:?} {event:?} twice"
                    );
                }
            }
        }
    }

    /// A step failed `failures` times, on this many machines.
    const fn failed(level: FailureLevel, failures: i64, machines: i64) -> Event {
        Event::StepFailed {
            level,
            failures,
            machines,
            needs_files: false,
        }
    }

    #[test]
    fn a_sector_on_chain_is_never_sealed_again() {
        for state in SectorState::ALL.into_iter().filter(|s| s.is_on_chain()) {
            assert_eq!(
                next(state, Event::MachineLost),
                Transition::Ignore,
                "{state:?}"
            );
            for level in [
                FailureLevel::Temporary,
                FailureLevel::Permanent,
                FailureLevel::Abort,
                FailureLevel::Critical,
            ] {
                let after = next(state, failed(level, 99, 9));
                assert!(
                    matches!(after, Transition::Ignore | Transition::Retry(_)),
                    "{state:?} {level:?} {after:?}"
                );
            }
        }
    }

    #[test]
    fn repeated_failures_end_in_quarantine() {
        for level in [
            FailureLevel::Temporary,
            FailureLevel::Permanent,
            FailureLevel::Abort,
        ] {
            for (failures, machines) in [(MOST_FAILURES, 1), (MOST_MACHINES, MOST_MACHINES)] {
                assert_eq!(
                    next(SectorState::Commit2, failed(level, failures, machines)),
                    Transition::To(SectorState::Quarantined)
                );
            }
        }
        for (level, after) in [
            (FailureLevel::Temporary, Transition::Retry(Where::Anywhere)),
            (FailureLevel::Permanent, Transition::Retry(Where::Elsewhere)),
            (FailureLevel::Abort, Transition::To(SectorState::Planned)),
            (
                FailureLevel::Critical,
                Transition::To(SectorState::Quarantined),
            ),
        ] {
            assert_eq!(
                next(SectorState::PreCommit1, failed(level, 1, 1)),
                after,
                "{level:?} once"
            );
        }
    }

    #[test]
    fn a_reorganisation_undoes_only_the_stages_that_it_takes_back() {
        use SectorState as S;
        for (event, from, to) in [
            (
                Event::PreCommitLost,
                vec![
                    S::WaitSeed,
                    S::Commit1,
                    S::Commit2,
                    S::Verifying,
                    S::ProveCommitting,
                ],
                S::PreCommitting,
            ),
            (
                Event::SeedMoved,
                vec![S::Commit1, S::Commit2, S::Verifying, S::ProveCommitting],
                S::WaitSeed,
            ),
            (
                Event::ActivationLost,
                vec![S::Finalizing, S::Proving, S::Active, S::Faulty],
                S::ProveCommitting,
            ),
        ] {
            for state in S::ALL {
                let expected = if from.contains(&state) {
                    Transition::To(to)
                } else {
                    Transition::Ignore
                };
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn names_can_be_read_back() {
        for state in SectorState::ALL {
            assert_eq!(SectorState::from_name(state.name()), Some(state));
        }
    }
}
