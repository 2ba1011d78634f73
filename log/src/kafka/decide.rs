//! What an outcome of a transaction call means: pure, so that it can be tested without a broker.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// Where in a transaction the call was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the request that ends the transaction: begin, records, offsets.
    Before,
    /// The request that ends it.
    Commit,
    /// Rolling it back.
    Abort,
}

/// What kind of refusal it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The group has moved on without this member.
    Group,
    /// A newer producer has this transactional id.
    Fenced,
    /// The broker will never take this: rights, sizes, versions.
    Refused,
    /// Anything else: time-outs, connections, elections.
    Passing,
}

/// An error, reduced to what the decision needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) class: Class,
    /// The producer is of no more use.
    pub(super) fatal: bool,
    /// The transaction was not committed and must be aborted.
    pub(super) requires_abort: bool,
}

/// What else is known about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Circumstances {
    pub(super) took: Duration,
    /// Time for one request: beyond it librdkafka has sent the request again.
    pub(super) request_max: Duration,
    /// A connection broke or another error was reported while it ran.
    pub(super) disturbed: bool,
}

impl Circumstances {
    /// Whether no request can have been left behind: librdkafka retries the end of a transaction inside
    /// itself, so only an answer that came quickly over an undisturbed connection says so.
    fn are_clear(self) -> bool {
        self.took < self.request_max && !self.disturbed
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It worked.
    GoOn,
    /// Abort the transaction, then seek back.
    Abort,
    /// It was not committed and this producer is of no more use: a new one, then seek back.
    Rebuild,
    /// It may have been committed, or may yet be: a new producer, then compare.
    Doubt,
}

pub(super) fn decide(
    phase: Phase,
    outcome: Result<(), Facts>,
    circumstances: Circumstances,
) -> Decision {
    let clear = circumstances.are_clear();
    match (phase, outcome) {
        (Phase::Before, Ok(())) => Decision::GoOn,
        (Phase::Before, Err(facts)) if facts.fatal => Decision::Rebuild,
        (Phase::Before, Err(_)) => Decision::Abort,
        (Phase::Commit, Ok(())) if clear => Decision::GoOn,
        (Phase::Commit, Err(facts)) if clear && facts.requires_abort && !facts.fatal => {
            Decision::Abort
        }
        (Phase::Commit, _) => Decision::Doubt,
        (Phase::Abort, Ok(())) if clear => Decision::GoOn,
        (Phase::Abort, _) => Decision::Rebuild,
    }
}

pub(super) fn facts(error: &KafkaError) -> Facts {
    let class = code(error).map_or(Class::Passing, class);
    match error {
        KafkaError::Transaction(error) => Facts {
            class,
            fatal: error.is_fatal() || class == Class::Fenced,
            requires_abort: error.txn_requires_abort(),
        },
        _ => Facts {
            class,
            fatal: class == Class::Fenced,
            requires_abort: false,
        },
    }
}

pub(super) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

pub(super) fn class(code: Code) -> Class {
    match code {
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::StaleMemberEpoch
        | Code::FencedMemberEpoch
        | Code::RebalanceInProgress
        | Code::NoOffset
        | Code::AssignmentLost => Class::Group,
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Class::Fenced,
        Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidRecord
        | Code::InvalidTimestamp
        | Code::OffsetMetadataTooLarge
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::InvalidTransactionTimeout
        | Code::PolicyViolation
        | Code::InvalidConfig
        | Code::InvalidArgument => Class::Refused,
        _ => Class::Passing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_facts() -> impl Strategy<Value = Facts> {
        let class = prop::sample::select(vec![
            Class::Group,
            Class::Fenced,
            Class::Refused,
            Class::Passing,
        ]);
        (class, any::<bool>(), any::<bool>()).prop_map(|(class, fatal, requires_abort)| Facts {
            class,
            fatal,
            requires_abort,
        })
    }

    fn any_outcome() -> impl Strategy<Value = Result<(), Facts>> {
        prop_oneof![Just(Ok(())), any_facts().prop_map(Err)]
    }

    fn any_circumstances() -> impl Strategy<Value = Circumstances> {
        (0u64..20_000, any::<bool>()).prop_map(|(ms, disturbed)| Circumstances {
            took: Duration::from_millis(ms),
            request_max: Duration::from_secs(10),
            disturbed,
        })
    }

    proptest! {
        /// An error is never gone over; a slow or disturbed end of a transaction never goes on with
        /// the same producer.
        #[test]
        fn goes_on_only_when_clear(
            phase in prop::sample::select(vec![Phase::Before, Phase::Commit, Phase::Abort]),
            outcome in any_outcome(),
            circumstances in any_circumstances(),
        ) {
            let decision = decide(phase, outcome, circumstances);
            let clear = circumstances.took < circumstances.request_max && !circumstances.disturbed;
            if decision == Decision::GoOn {
                prop_assert!(outcome.is_ok());
                prop_assert!(clear || phase == Phase::Before);
            }
            if phase != Phase::Before && !clear {
                prop_assert!(matches!(decision, Decision::Doubt | Decision::Rebuild));
            }
        }

        /// Once the end of a transaction was asked for, it counts as not committed only when the
        /// broker said so clearly; before, there is nothing to doubt.
        #[test]
        fn doubts_what_may_have_happened(
            outcome in any_outcome(),
            circumstances in any_circumstances(),
        ) {
            let commit = decide(Phase::Commit, outcome, circumstances);
            prop_assert_ne!(commit, Decision::Rebuild);
            if commit == Decision::Abort {
                let Err(facts) = outcome else {
                    return Err(TestCaseError::fail("aborts what worked"));
                };
                prop_assert!(facts.requires_abort && !facts.fatal && !circumstances.disturbed);
            }
            prop_assert_ne!(decide(Phase::Before, outcome, circumstances), Decision::Doubt);
        }

        /// A fatal error always ends the producer.
        #[test]
        fn fatal_ends_the_producer(
            facts in any_facts(),
            phase in prop::sample::select(vec![Phase::Before, Phase::Commit, Phase::Abort]),
            circumstances in any_circumstances(),
        ) {
            let facts = Facts { fatal: true, ..facts };
            let decision = decide(phase, Err(facts), circumstances);
            prop_assert!(matches!(decision, Decision::Rebuild | Decision::Doubt));
        }
    }

    /// Codes of each class, as librdkafka reports them.
    #[test]
    fn classes() {
        assert_eq!(class(Code::IllegalGeneration), Class::Group);
        assert_eq!(class(Code::StaleMemberEpoch), Class::Group);
        assert_eq!(class(Code::Fenced), Class::Fenced);
        assert_eq!(class(Code::MessageSizeTooLarge), Class::Refused);
        assert_eq!(class(Code::OperationTimedOut), Class::Passing);
        assert_eq!(class(Code::BrokerTransportFailure), Class::Passing);
        let error = KafkaError::MessageProduction(Code::MessageSizeTooLarge);
        assert_eq!(code(&error), Some(Code::MessageSizeTooLarge));
    }
}
