//! Whether a tenant answers, as all who ask it know it. A request to a tenant that swallows packets takes ten seconds. After
//! one that got no answer the others fail at once, for a time in proportion to what it took, and then one tries again. Pure:
//! the time is an argument.

use std::time::{Duration, Instant};

use super::error::Error;

/// How long a tenant that did not answer is not asked: so many times as long as the request took. One that refuses the
/// connection costs nothing and is asked again at once.
const REST: u32 = 3;
/// How long one try may take. Longer than any request.
const TRY: Duration = Duration::from_secs(12);

/// What is known.
#[derive(Debug, Default)]
pub struct Silence {
    /// Until when nobody asks, and the error of the request that got no answer.
    silent: Option<(Instant, Error)>,
}

impl Silence {
    /// Whether a request may be sent.
    ///
    /// # Errors
    /// Why not: an earlier request got no answer.
    pub fn may_ask(&mut self, now: Instant) -> Result<(), Error> {
        match &mut self.silent {
            None => Ok(()),
            Some((until, why)) if now < *until => Err(why.clone()),
            Some((until, _)) => {
                // The others wait for what becomes of this request.
                *until = now + TRY;
                Ok(())
            }
        }
    }

    /// A request was answered, with whatever answer.
    pub fn note_answer(&mut self) {
        self.silent = None;
    }

    /// How a request ended that was sent at `asked`.
    pub fn note<T>(&mut self, result: &Result<T, Error>, asked: Instant, now: Instant) {
        match result {
            Err(error @ Error::Unreachable { .. }) => {
                let rest = now.saturating_duration_since(asked) * REST;
                self.silent = Some((now + rest, error.clone()));
            }
            Ok(_) | Err(_) => self.note_answer(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> Result<(), Error> {
        Err(Error::Unreachable {
            action: "get Node m".to_owned(),
            cause: "no answer within 10 s".to_owned(),
        })
    }

    #[test]
    fn one_that_got_no_answer_speaks_for_all_until_one_tries_again() {
        let (mut silence, start) = (Silence::default(), Instant::now());
        assert_eq!(silence.may_ask(start), Ok(()));
        let late = start + Duration::from_secs(10);
        silence.note(&silent(), start, late);
        assert_eq!(silence.may_ask(late), silent());
        assert_eq!(silence.may_ask(late + Duration::from_secs(29)), silent());
        let again = late + Duration::from_secs(30);
        assert_eq!(silence.may_ask(again), Ok(()), "one tries");
        assert_eq!(silence.may_ask(again), silent(), "the others wait for it");
        // It was given up on its way, so another one tries.
        assert_eq!(silence.may_ask(again + TRY), Ok(()));
        silence.note::<()>(&Ok(()), again, again + TRY);
        assert_eq!(silence.may_ask(again + TRY), Ok(()));
    }

    #[test]
    fn one_that_refuses_the_connection_is_asked_again_at_once() {
        let (mut silence, now) = (Silence::default(), Instant::now());
        silence.note(&silent(), now, now);
        assert_eq!(silence.may_ask(now), Ok(()));
    }

    #[test]
    fn a_refusal_is_an_answer() {
        let mut silence = Silence::default();
        let now = Instant::now();
        silence.note(&silent(), now, now + TRY);
        let refused: Result<(), _> = Err(Error::Refused {
            action: "get Node m".to_owned(),
            code: 403,
            message: "no".to_owned(),
        });
        silence.note(&refused, now, now);
        assert_eq!(silence.may_ask(now), Ok(()));
    }
}
