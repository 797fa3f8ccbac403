//! When the token of a pool is replaced. Machines boot with it at any time, so it is never extended: after half of its life
//! the data gets another one, and the one before lives to its end. At most two exist at the same time. Pure.

use k8s_openapi::jiff::Timestamp;
use kamaji_api::bootstrap::{DEFAULT_POOL_TTL, KamajiConfigStatus, TokenSettings, TokenStatus};

use crate::kamajiconfig::token::seconds;

/// Seconds after its end for which a token is remembered: a request that it authenticated may still wait.
const REMEMBERED: i64 = 600;

/// The tokens of a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// The one in the data.
    pub current: Option<TokenStatus>,
    /// The one that the data had before.
    pub former: Option<TokenStatus>,
}

impl Tokens {
    /// Those that the status has.
    pub fn of(status: Option<&KamajiConfigStatus>) -> Self {
        Self {
            current: status.and_then(|status| status.token.clone()),
            former: status.and_then(|status| status.former_token.clone()),
        }
    }

    /// Those with `current` in the data. It may be newer than the status: a crash came between both.
    #[must_use]
    pub fn with(self, current: TokenStatus) -> Self {
        let is_newer = self.current.as_ref().is_some_and(|known| known.id != current.id);
        Self {
            former: if is_newer { self.current } else { self.former },
            current: Some(current),
        }
    }

    /// IDs of both, the current one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let both = self.current.iter().chain(&self.former);
        both.filter_map(|token| token.id.as_deref())
    }

    /// The token with this ID lived to its end. One that somebody deleted did not.
    pub fn has_ended(&self, id: &str, now: Timestamp) -> bool {
        let mut both = self.current.iter().chain(&self.former);
        both.any(|token| token.id.as_deref() == Some(id) && left(token, now) <= 0)
    }

    /// Without this one.
    #[must_use]
    pub fn without(self, id: &str) -> Self {
        let is_other = |token: &TokenStatus| token.id.as_deref() != Some(id);
        Self {
            current: self.current.filter(is_other),
            former: self.former.filter(is_other),
        }
    }

    /// Without a former one that ended long ago.
    #[must_use]
    pub fn at(self, now: Timestamp) -> Self {
        let former = self.former.filter(|token| left(token, now) > -REMEMBERED);
        Self { former, ..self }
    }
}

/// Seconds until a token ends.
pub fn left(token: &TokenStatus, now: Timestamp) -> i64 {
    let end = token.expiration.as_ref().map_or(now, |time| time.0);
    end.as_second() - now.as_second()
}

/// Lifetime of a token of a pool in seconds.
pub fn ttl(settings: &TokenSettings) -> i64 {
    let default = i64::try_from(DEFAULT_POOL_TTL.as_secs()).unwrap_or(i64::MAX);
    seconds(settings.pool_ttl, default)
}

/// Seconds until the current token is to be replaced; zero or less is now. While the one before it lives, it waits,
/// at most until it ends itself.
pub fn due_in(tokens: &Tokens, ttl: i64, now: Timestamp) -> i64 {
    let Some(current) = &tokens.current else {
        return 0;
    };
    let former = tokens.former.as_ref().map_or(0, |former| left(former, now));
    // With another lifetime the current one may end first, and no dead one is to stay in the data.
    (left(current, now) - ttl / 2).max(former).min(left(current, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kamajiconfig::status::seconds;

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn token(id: &str, end: i64) -> TokenStatus {
        TokenStatus {
            id: Some(id.to_owned()),
            expiration: Some(seconds(at(end))),
            created: None,
        }
    }

    #[test]
    fn bootstrap_15_a_token_is_replaced_at_half_life_and_at_most_two_live() {
        let settings = TokenSettings::default();
        let ttl = ttl(&settings);
        assert_eq!(ttl, HOUR);
        let (mut tokens, mut alive, mut rotations) = (Tokens::default(), Vec::<i64>::new(), Vec::new());
        for now in 0..10 * HOUR {
            alive.retain(|end| *end > now);
            if due_in(&tokens, ttl, at(now)) <= 0 {
                tokens = tokens.with(token(&now.to_string(), now + ttl));
                alive.push(now + ttl);
                rotations.push(now);
            }
            assert!(alive.len() <= 2, "{now}: {alive:?}");
            let longest = alive.iter().map(|end| end - now).max().unwrap();
            assert!(
                longest >= ttl / 2,
                "a machine that boots has at least half an hour"
            );
        }
        assert_eq!(rotations[..4], [0, HOUR / 2, HOUR, HOUR * 3 / 2]);
    }

    #[test]
    fn another_lifetime_does_not_make_a_third_token() {
        let day = 24 * HOUR;
        let tokens = Tokens {
            current: Some(token("b", HOUR)),
            former: Some(token("a", HOUR / 2)),
        };
        assert_eq!(
            due_in(&tokens, day, at(0)),
            HOUR / 2,
            "when the former one has ended"
        );
        let alone = Tokens {
            former: None,
            ..tokens
        };
        assert!(due_in(&alone, day, at(0)) <= 0);
        let short = Tokens {
            current: Some(token("c", 300)),
            former: Some(token("b", day)),
        };
        assert_eq!(due_in(&short, 300, at(0)), 300, "no dead token stays in the data");
    }

    #[test]
    fn after_a_crash_the_token_of_the_status_is_the_former_one() {
        let tokens = Tokens {
            current: Some(token("b", 20)),
            former: Some(token("a", 10)),
        };
        assert_eq!(tokens.clone().with(token("b", 20)), tokens);
        let newer = tokens.with(token("c", 30));
        assert_eq!(newer.ids().collect::<Vec<_>>(), ["c", "b"]);
    }

    #[test]
    fn a_former_token_is_remembered_while_requests_may_wait() {
        let tokens = Tokens {
            current: Some(token("b", HOUR)),
            former: Some(token("a", 0)),
        };
        assert!(
            tokens.has_ended("a", at(0)) && !tokens.has_ended("b", at(0)) && !tokens.has_ended("x", at(0))
        );
        assert!(tokens.clone().at(at(REMEMBERED - 1)).former.is_some());
        assert!(tokens.at(at(REMEMBERED)).former.is_none());
    }
}
