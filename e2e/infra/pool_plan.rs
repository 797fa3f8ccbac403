//! What a `LocalMachinePool` does next: one step at a time, so that a crash between two steps repeats none. Pure.

use super::api::PoolInstance;

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An instance more.
    Add,
    /// This instance goes.
    Remove(String),
    /// Nothing is to be done.
    Nothing,
}

/// The next step towards `replicas` instances that were booted from the Secret `data`. Dead instances go first. Instances of
/// another Secret are replaced one by one: the new one is added before an old one goes.
pub fn next(instances: &[PoolInstance], replicas: usize, data: &str) -> Step {
    if let Some(dead) = instances.iter().find(|instance| instance.dead) {
        return Step::Remove(dead.name.clone());
    }
    let is_old = |instance: &&PoolInstance| instance.data != data;
    let old = instances.iter().filter(is_old).count();
    if instances.len() - old < replicas && instances.len() < replicas + usize::from(old > 0) {
        return Step::Add;
    }
    if instances.len() > replicas {
        let outdated = instances.iter().find(is_old);
        let one = outdated.or_else(|| instances.last());
        return one.map_or(Step::Nothing, |one| Step::Remove(one.name.clone()));
    }
    Step::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, data: &str) -> PoolInstance {
        PoolInstance {
            name: name.to_owned(),
            data: data.to_owned(),
            ..PoolInstance::default()
        }
    }

    #[test]
    fn a_pool_grows_and_shrinks_to_its_size() {
        let [a, b] = ["a", "b"].map(|name| instance(name, "s"));
        assert_eq!(next(&[], 1, "s"), Step::Add);
        assert_eq!(next(std::slice::from_ref(&a), 1, "s"), Step::Nothing);
        assert_eq!(next(&[a, b], 1, "s"), Step::Remove("b".to_owned()));
        assert_eq!(next(&[], 0, "s"), Step::Nothing);
    }

    #[test]
    fn a_dead_instance_goes_before_another_comes() {
        let dead = PoolInstance {
            dead: true,
            ..instance("a", "s")
        };
        assert_eq!(next(&[dead], 1, "s"), Step::Remove("a".to_owned()));
    }

    #[test]
    fn another_secret_replaces_instances_one_by_one() {
        let (mut list, mut names, mut most) = (vec![instance("0", "old"), instance("1", "old")], 2, 0);
        loop {
            match next(&list, 2, "new") {
                Step::Add => {
                    list.push(instance(&names.to_string(), "new"));
                    names += 1;
                }
                Step::Remove(name) => list.retain(|one| one.name != name),
                Step::Nothing => break,
            }
            most = most.max(list.len());
            assert!(names < 10, "it ends");
        }
        assert_eq!((most, list.len()), (3, 2));
        assert!(list.iter().all(|one| one.data == "new"));
    }
}
