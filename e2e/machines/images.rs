//! Which image a machine boots from. Pure.

use std::{collections::BTreeMap, path::PathBuf};

use super::wire::Order;

/// Image of an order that asks for none and whose version of Kubernetes has no image of its own.
pub const DEFAULT: &str = "default";

/// What a machine boots from, and with it what kind of machine it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A container: its root filesystem.
    Root(PathBuf),
    /// A virtual machine: a folder with its kernel and disk.
    Disk(PathBuf),
}

/// The images of a host, by name. One that is named like a version of Kubernetes, for example `v1.36.3`, has the
/// kubelet of that version.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, Image>);

impl FromIterator<(String, Image)> for Images {
    fn from_iter<I: IntoIterator<Item = (String, Image)>>(images: I) -> Self {
        Self(images.into_iter().collect())
    }
}

impl Images {
    /// The image that the order names; else that of its version; else [`DEFAULT`].
    ///
    /// # Errors
    /// When there is no such image, with the names of those that there are.
    pub fn of(&self, order: &Order) -> Result<Image, String> {
        let version = order.version.as_deref().filter(|name| self.0.contains_key(*name));
        let name = order.image.as_deref().or(version).unwrap_or(DEFAULT);
        self.0.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            format!("there is no image {name:?}; this host has: {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(names: &[&str]) -> Images {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Image::Root(PathBuf::from(name))))
            .collect()
    }

    fn order(image: Option<&str>, version: Option<&str>) -> Order {
        Order {
            hostname: String::new(),
            image: image.map(str::to_owned),
            version: version.map(str::to_owned),
            cluster_pod_cidr: String::new(),
            network: None,
            clock_offset_seconds: 0,
            user_data: String::new(),
        }
    }

    #[test]
    fn a_machine_boots_the_image_of_its_version_unless_it_names_another() {
        let images = images(&[DEFAULT, "v1.34.4", "other"]);
        for (image, version, boots) in [
            (None, None, DEFAULT),
            (None, Some("v1.34.4"), "v1.34.4"),
            (None, Some("v1.36.3"), DEFAULT),
            (Some("other"), Some("v1.34.4"), "other"),
            (Some(DEFAULT), Some("v1.34.4"), DEFAULT),
        ] {
            assert_eq!(
                images.of(&order(image, version)),
                Ok(Image::Root(PathBuf::from(boots)))
            );
        }
    }

    #[test]
    fn an_image_that_is_not_there_is_refused_with_the_names_of_the_others() {
        let refused = images(&[DEFAULT, "v1.34.4"]).of(&order(Some("large"), Some("v1.34.4")));
        assert_eq!(
            refused.unwrap_err(),
            "there is no image \"large\"; this host has: default, v1.34.4"
        );
        assert!(images(&["v1.34.4"]).of(&order(None, Some("v1.35.4"))).is_err());
    }
}
