//! Decides whether a Secret of key material is kept or issued again: a chain of rules over its annotations, in the order
//! of [`decide`].
//!
//! CAs and key pairs are never issued again, whatever their age: a new one breaks every node and every token. A CA
//! without our annotations belongs to a user and is used as it is.
//!
//! A certificate that expires together with its CA is issued again when it has expired and not before: a new one could
//! not expire later, so each reconcile would issue one and roll the pods.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::{
    annotations as on,
    spec::{Content, Renewal, SecretSpec},
};

/// Certificates that are due within this span are renewed together, so that pods roll once. For a short lifetime the
/// span is a twelfth of it.
const TOGETHER: SignedDuration = SignedDuration::from_hours(6);

/// Why a Secret is issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
pub enum Reason {
    /// The Secret does not exist.
    Missing,
    /// The Secret lacks our annotations.
    Unrecorded,
    /// Names, subjects or servers changed.
    InputsChanged,
    /// It was signed by another CA.
    CaChanged,
    /// It is due for renewal.
    Expiring,
}

/// What to do with one Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// The Secret is kept.
    Keep {
        /// When it is due for renewal; `None` for what does not expire.
        renew_at: Option<Timestamp>,
    },
    /// A user's CA: read the bytes to get its fingerprint and to check it.
    Inspect,
    /// It is issued.
    Issue(Reason),
}

/// What a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The Secret as it should be.
    pub spec: &'a SecretSpec,
    /// `namespace/name` of the tenant: renewals of tenants that were created together are spread by it.
    pub tenant: &'a str,
    /// Annotations of the Secret, if it exists.
    pub observed: Option<&'a BTreeMap<String, String>>,
    /// Fingerprint of the CA that signs it; `None` for CAs and key pairs.
    pub ca: Option<&'a str>,
    /// The current time.
    pub now: Timestamp,
}

type Rule = fn(&Input<'_>, &BTreeMap<String, String>, Option<Due>) -> Option<Reason>;

/// When a certificate is renewed.
#[derive(Clone, Copy)]
struct Due {
    at: Timestamp,
    /// How much earlier it may be renewed, together with others.
    ahead: SignedDuration,
}

/// Decides about one Secret, from its annotations alone.
pub fn decide(input: Input<'_>) -> Decision {
    let Some(observed) = input.observed else {
        return Decision::Issue(Reason::Missing);
    };
    match input.spec.content {
        Content::KeyPair { .. } => return Decision::Keep { renew_at: None },
        Content::Ca { .. } if observed.contains_key(on::CA_FINGERPRINT) => {
            return Decision::Keep { renew_at: None };
        }
        Content::Ca { .. } => return Decision::Inspect,
        Content::Certificate { .. } | Content::Kubeconfigs { .. } => {}
    }
    let due = renewal(input.spec.renewal, input.tenant, observed);
    let kept = Decision::Keep {
        renew_at: due.map(|due| due.at),
    };
    let chain: [Rule; 4] = [unrecorded, inputs_changed, ca_changed, expiring];
    chain
        .iter()
        .find_map(|rule| rule(&input, observed, due))
        .map_or(kept, Decision::Issue)
}

fn unrecorded(_: &Input<'_>, observed: &BTreeMap<String, String>, due: Option<Due>) -> Option<Reason> {
    (due.is_none() || !observed.contains_key(on::INPUTS_HASH)).then_some(Reason::Unrecorded)
}

fn inputs_changed(input: &Input<'_>, observed: &BTreeMap<String, String>, _: Option<Due>) -> Option<Reason> {
    (observed.get(on::INPUTS_HASH) != Some(&input.spec.inputs_hash())).then_some(Reason::InputsChanged)
}

fn ca_changed(input: &Input<'_>, observed: &BTreeMap<String, String>, _: Option<Due>) -> Option<Reason> {
    let recorded = observed.get(on::CA_FINGERPRINT).map(String::as_str);
    (recorded != input.ca).then_some(Reason::CaChanged)
}

fn expiring(input: &Input<'_>, _: &BTreeMap<String, String>, due: Option<Due>) -> Option<Reason> {
    let due = due?;
    let soon = input.now.checked_add(due.ahead).unwrap_or(input.now);
    (due.at <= soon).then_some(Reason::Expiring)
}

/// After a fraction of its lifetime, minus up to a twelfth of it that depends on the tenant. At its end, when it expires
/// together with its CA.
fn renewal(rule: Renewal, tenant: &str, observed: &BTreeMap<String, String>) -> Option<Due> {
    let at = |key: &str| observed.get(key)?.parse::<Timestamp>().ok();
    let (start, end) = (at(on::NOT_BEFORE)?, at(on::NOT_AFTER)?);
    let life = end.as_second().checked_sub(start.as_second())?;
    if observed.contains_key(on::ENDS_WITH_AUTHORITY) {
        return Some(Due {
            at: end,
            ahead: SignedDuration::ZERO,
        });
    }
    let used = match rule {
        Renewal::HalfLife => life / 2,
        Renewal::LastThird => life / 3 * 2,
    };
    let spread = (life / 12).max(1);
    let digest = Sha256::digest(tenant.as_bytes());
    let offset = digest
        .iter()
        .take(4)
        .fold(0_i64, |sum, byte| sum * 256 + i64::from(*byte));
    let at = Timestamp::from_second(start.as_second() + used - offset % spread).ok()?;
    Some(Due {
        at,
        ahead: TOGETHER.min(SignedDuration::from_secs(spread)),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::spec::{self, Tenant, component},
        *,
    };

    const DAY: i64 = 86_400;

    fn specs() -> Vec<SecretSpec> {
        spec::tenant(&Tenant {
            namespace: "demo".to_owned(),
            name: "alpha".to_owned(),
            endpoint: "192.0.2.7:6443".to_owned(),
            port: 6443,
            ..Tenant::default()
        })
    }

    fn pick(component: &str) -> SecretSpec {
        specs()
            .into_iter()
            .find(|spec| spec.component == component)
            .unwrap()
    }

    fn recorded(spec: &SecretSpec, ca: &str, days: i64) -> BTreeMap<String, String> {
        let at = |day: i64| Timestamp::from_second(day * DAY).unwrap().to_string();
        BTreeMap::from([
            (on::INPUTS_HASH.to_owned(), spec.inputs_hash()),
            (on::NOT_BEFORE.to_owned(), at(0)),
            (on::NOT_AFTER.to_owned(), at(days)),
            (on::CA_FINGERPRINT.to_owned(), ca.to_owned()),
        ])
    }

    fn ask(spec: &SecretSpec, observed: Option<&BTreeMap<String, String>>, day: i64) -> Decision {
        decide(Input {
            spec,
            tenant: "demo/alpha",
            observed,
            ca: Some("aa"),
            now: Timestamp::from_second(day * DAY).unwrap(),
        })
    }

    #[test]
    fn each_rule_of_the_chain_has_its_reason() {
        let leaf = pick(component::API_SERVER);
        let good = recorded(&leaf, "aa", 365);
        let without = |key: &str| {
            let mut some = good.clone();
            some.remove(key);
            some
        };
        let with = |key: &str, value: &str| {
            let mut some = good.clone();
            some.insert(key.to_owned(), value.to_owned());
            some
        };
        let table = [
            ("missing", None, Decision::Issue(Reason::Missing)),
            (
                "foreign",
                Some(BTreeMap::new()),
                Decision::Issue(Reason::Unrecorded),
            ),
            (
                "no end",
                Some(without(on::NOT_AFTER)),
                Decision::Issue(Reason::Unrecorded),
            ),
            (
                "bad date",
                Some(with(on::NOT_AFTER, "soon")),
                Decision::Issue(Reason::Unrecorded),
            ),
            (
                "inputs",
                Some(with(on::INPUTS_HASH, "x")),
                Decision::Issue(Reason::InputsChanged),
            ),
            (
                "CA",
                Some(with(on::CA_FINGERPRINT, "bb")),
                Decision::Issue(Reason::CaChanged),
            ),
        ];
        for (case, observed, expected) in table {
            assert_eq!(ask(&leaf, observed.as_ref(), 1), expected, "{case}");
        }
        assert!(matches!(
            ask(&leaf, Some(&good), 1),
            Decision::Keep { renew_at: Some(_) }
        ));
    }

    #[test]
    fn clients_are_renewed_at_half_life_and_servers_in_the_last_third() {
        for (component, latest) in [(component::ADMIN, 183), (component::API_SERVER, 244)] {
            let spec = pick(component);
            let good = recorded(&spec, "aa", 365);
            assert!(
                matches!(ask(&spec, Some(&good), latest - 35), Decision::Keep { .. }),
                "{component}"
            );
            assert_eq!(
                ask(&spec, Some(&good), latest),
                Decision::Issue(Reason::Expiring),
                "{component}"
            );
        }
    }

    #[test]
    fn a_certificate_issued_for_hours_is_not_renewed_at_once() {
        let spec = pick(component::API_SERVER);
        let mut short = recorded(&spec, "aa", 1);
        short.insert(on::NOT_AFTER.to_owned(), "1970-01-01T08:00:00Z".to_owned());
        assert!(matches!(ask(&spec, Some(&short), 0), Decision::Keep { .. }));
    }

    #[test]
    fn a_certificate_is_renewed_at_the_announced_time() {
        let spec = pick(component::SCHEDULER);
        let good = recorded(&spec, "aa", 365);
        let Decision::Keep { renew_at: Some(at) } = ask(&spec, Some(&good), 0) else {
            panic!("not kept");
        };
        let input = Input {
            spec: &spec,
            tenant: "demo/alpha",
            observed: Some(&good),
            ca: Some("aa"),
            now: at,
        };
        assert_eq!(decide(input), Decision::Issue(Reason::Expiring));
    }

    #[test]
    fn renewals_of_tenants_created_together_are_spread() {
        let spec = pick(component::API_SERVER);
        let good = recorded(&spec, "aa", 365);
        let days: std::collections::BTreeSet<i64> = (0..50)
            .filter_map(|number| renewal(spec.renewal, &format!("demo/t{number}"), &good))
            .map(|due| due.at.as_second() / DAY)
            .collect();
        assert!(days.len() > 15, "{days:?}");
    }

    #[test]
    fn a_ca_is_never_issued_again() {
        let ca = pick(component::CA);
        assert_eq!(ask(&ca, None, 0), Decision::Issue(Reason::Missing));
        assert_eq!(ask(&ca, Some(&BTreeMap::new()), 0), Decision::Inspect, "a user's");
        let old = recorded(&ca, "cc", 10);
        assert_eq!(ask(&ca, Some(&old), 100), Decision::Keep { renew_at: None });
        let pair = pick(component::SERVICE_ACCOUNT);
        assert_eq!(
            ask(&pair, Some(&BTreeMap::new()), 100),
            Decision::Keep { renew_at: None }
        );
    }
}
