//! How bootstrap data gets to a machine: how much of it the infrastructure takes, and how it has to be written. Pure.

use kamaji_api::{
    bootstrap::{LARGEST_OUTPUT, Output},
    presets::{Encoded, Preset, Style, UserData},
};

/// Largest bootstrap data in bytes, whatever the infrastructure.
pub const LIMIT: usize = LARGEST_OUTPUT as usize;
/// Percentage of a limit from which on there is a warning.
const NEAR: i64 = 80;

/// The size is one to warn of.
pub const fn is_near(bytes: i64, limit: i64) -> bool {
    bytes.saturating_mul(100) >= limit.saturating_mul(NEAR)
}

/// How bootstrap data gets to a machine.
#[derive(Clone, Debug, Default)]
pub struct Delivery {
    /// How it is written.
    pub style: Style,
    /// Name of the infrastructure, for people; empty when none is known.
    pub provider: &'static str,
    /// What it takes at most, apart from [`LIMIT`].
    pub limit: Option<UserData>,
    /// The limit is one that the user set.
    pub chosen: bool,
}

/// Size of bootstrap data beside what is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Bytes as the infrastructure counts them.
    pub bytes: usize,
    /// What it takes at most; none but [`LIMIT`] is known without it.
    pub limit: Option<usize>,
    /// What is said about the size, if it is near the limit.
    pub warning: Option<String>,
}

impl Delivery {
    /// How data gets to the machines of an infrastructure.
    pub fn of(preset: &'static Preset, output: &Output) -> Self {
        let chosen = output.max_bytes.map(|bytes| UserData {
            bytes: bytes as usize,
            encoding: Encoded::Plain,
            unless: String::new(),
        });
        Self {
            style: preset.style,
            provider: &preset.provider,
            limit: chosen.or_else(|| preset.user_data.clone()),
            chosen: output.max_bytes.is_some(),
        }
    }

    /// Measures data of `plain` bytes that has `gzip` bytes when it is compressed.
    ///
    /// # Errors
    /// Both figures, for people, when it is too large.
    pub fn measure(&self, plain: usize, gzip: usize) -> Result<Size, String> {
        let Some(limit) = &self.limit else {
            return if plain > LIMIT {
                Err(format!("{plain} bytes, at most {LIMIT} are possible"))
            } else {
                Ok(Size {
                    bytes: plain,
                    limit: None,
                    warning: None,
                })
            };
        };
        let bytes = limit.encoding.size(plain, gzip);
        let most = limit.bytes;
        let is = format!("{bytes} bytes{}", limit.encoding.text());
        if bytes > most && limit.unless.is_empty() {
            return Err(if self.chosen {
                format!("{is}, at most {most} are possible by spec.output.maxBytes")
            } else {
                format!(
                    "{is}, {} takes at most {most}; spec.output.maxBytes sets another limit, if yours takes more",
                    self.provider
                )
            });
        }
        if plain > LIMIT {
            return Err(format!("{plain} bytes, at most {LIMIT} are possible"));
        }
        let warning = if bytes > most {
            Some(format!(
                "the bootstrap data has {is}, {} takes at most {most} unless {}",
                self.provider, limit.unless
            ))
        } else {
            let known = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
            is_near(known(bytes), known(most))
                .then(|| format!("the bootstrap data has {is}, which is near the limit of {most}"))
        };
        Ok(Size {
            bytes,
            limit: Some(most),
            warning,
        })
    }
}

#[cfg(test)]
mod tests {
    use kamaji_api::bootstrap::InfraPreset;
    use rstest::rstest;

    use super::*;
    use crate::kamajiconfig::preset;

    fn delivery(name: InfraPreset, max_bytes: Option<u32>) -> Delivery {
        Delivery::of(preset::of(name, None), &Output { max_bytes })
    }

    #[rstest]
    #[case::openstack(InfraPreset::OpenStack, 49_149)]
    #[case::vsphere(InfraPreset::VSphere, 49_152)]
    #[case::hetzner(InfraPreset::HetznerCloud, 32_768)]
    #[case::pool(InfraPreset::AWSMachinePool, 16_384)]
    #[case::metal3(InfraPreset::Metal3, LIMIT)]
    fn bootstrap_44_at_exactly_the_limit_data_is_accepted(#[case] name: InfraPreset, #[case] most: usize) {
        let delivery = delivery(name, None);
        assert!(delivery.measure(most, most).is_ok(), "{name:?}");
        let error = delivery.measure(most + 1, most + 1).unwrap_err();
        assert!(error.contains("at most"), "{error}");
        assert!(
            name == InfraPreset::Metal3 || error.contains(delivery.provider),
            "{error}"
        );
    }

    #[test]
    fn bootstrap_44_from_four_fifths_of_the_limit_on_it_is_a_warning() {
        let pool = delivery(InfraPreset::AWSMachinePool, None);
        assert_eq!(pool.measure(13_107, 1).unwrap().warning, None);
        let size = pool.measure(13_108, 1).unwrap();
        assert_eq!((size.bytes, size.limit), (13_108, Some(16_384)));
        let warning = size.warning.unwrap();
        assert!(
            warning.contains("13108 bytes") && warning.contains("limit of 16384"),
            "{warning}"
        );
    }

    #[test]
    fn a_limit_that_may_not_apply_is_a_warning_with_the_way_around_it() {
        let aws = delivery(InfraPreset::AWS, None);
        let size = aws.measure(16_385, 9_000).unwrap();
        assert_eq!((size.bytes, size.limit), (16_385, Some(16_384)));
        let warning = size.warning.unwrap();
        assert!(
            warning.contains("16385 bytes, AWS takes at most 16384")
                && warning.contains("uncompressedUserData set to false")
                && warning.contains("secret store"),
            "{warning}"
        );
        assert!(aws.measure(LIMIT + 1, 20_000).is_err());
    }

    #[test]
    fn the_limit_of_the_user_wins() {
        let mine = delivery(InfraPreset::OpenStack, Some(60_000));
        assert_eq!(mine.measure(48_000, 1).unwrap().limit, Some(60_000));
        assert!(
            mine.measure(60_001, 1)
                .unwrap_err()
                .contains("spec.output.maxBytes")
        );
    }
}
