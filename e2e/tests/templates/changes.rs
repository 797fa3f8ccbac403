//! The variables of the ClusterClasses: for each another value, where it shows, and a value that is refused. Data only.

use serde_json::{Value, json};

/// Identity of a network in `OpenStack`.
const NETWORK: &str = "9e8d7c6b-5a49-4f38-8271-605f4e3d2c1b";

/// Which object a variable changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Of the cluster.
    Infrastructure,
    /// The `KamajiControlPlane`.
    ControlPlane,
    /// Template of the workers' bootstrap data.
    Bootstrap,
    /// Template of the workers' machines.
    Machine,
}

/// Another value of a variable, and where it shows: object, path, value.
pub type Change = (&'static str, Value, Vec<(Part, &'static str, Value)>);

/// What a variable refuses.
pub type Refused = (&'static str, Value);

/// Changes that every class has; `address` is its variable for the address of the control plane, if that is all it holds.
fn common(address: Option<&'static str>) -> Vec<Change> {
    use Part::{Bootstrap, ControlPlane};
    let annotations = json!({"example.org/address": "192.0.2.10"});
    let taint = json!({"key": "example.org/a", "value": "b", "effect": "NoExecute"});
    let mut changes: Vec<Change> = vec![
        (
            "dataStore",
            json!("gold"),
            vec![(ControlPlane, "/spec/dataStoreName", json!("gold"))],
        ),
        (
            "serviceType",
            json!("NodePort"),
            vec![(ControlPlane, "/spec/network/serviceType", json!("NodePort"))],
        ),
        (
            "serviceMetadata",
            json!({"annotations": annotations}),
            vec![(ControlPlane, "/spec/network/serviceAnnotations", annotations)],
        ),
        (
            "konnectivityPort",
            json!(30132),
            vec![(
                ControlPlane,
                "/spec/addons/konnectivity/server/port",
                json!(30132),
            )],
        ),
        (
            "nodeLabels",
            json!({"example.org/rack": "a"}),
            vec![(
                Bootstrap,
                "/spec/template/spec/nodeRegistration/labels",
                json!({"example.org/rack": "a"}),
            )],
        ),
        (
            "nodeTaints",
            json!([taint]),
            vec![(Bootstrap, "/spec/template/spec/nodeRegistration/taints/0", taint)],
        ),
    ];
    changes.extend(address.map(|variable| {
        let shows = vec![(ControlPlane, "/spec/network/serviceAddress", json!("192.0.2.10"))];
        (variable, json!("192.0.2.10"), shows)
    }));
    changes
}

/// A value of each variable that the class refuses.
fn commonly_refused() -> Vec<Refused> {
    vec![
        ("dataStore", json!("Not A Name")),
        ("serviceType", json!("ClusterIP")),
        ("serviceMetadata", json!({"annotations": {"example.org/a": 5}})),
        ("konnectivityPort", json!(80)),
        ("nodeLabels", json!({"example.org/a": "no label value!"})),
        ("nodeTaints", json!([{"key": "example.org/a", "effect": "Never"}])),
    ]
}

/// Changes and refusals of a class.
pub fn rows(class: &str) -> Option<(Vec<Change>, Vec<Refused>)> {
    let (own, refused, address) = match class {
        "vsphere" => (vsphere(), vsphere_refuses(), Some("controlPlaneIpAddr")),
        "metal3" => (metal3(), metal3_refuses(), None),
        "openstack" => (openstack(), openstack_refuses(), Some("serviceAddress")),
        _ => return None,
    };
    let changes = common(address).into_iter().chain(own).collect();
    Some((changes, commonly_refused().into_iter().chain(refused).collect()))
}

fn vsphere() -> Vec<Change> {
    use Part::{Bootstrap, Infrastructure, Machine};
    vec![
        (
            "infraServer",
            json!({"url": "other.example.org", "thumbprint": "AA:BB"}),
            vec![
                (Infrastructure, "/spec/server", json!("other.example.org")),
                (Infrastructure, "/spec/thumbprint", json!("AA:BB")),
                (Machine, "/spec/template/spec/server", json!("other.example.org")),
                (Machine, "/spec/template/spec/thumbprint", json!("AA:BB")),
            ],
        ),
        (
            "credsSecretName",
            json!("shared"),
            vec![(Infrastructure, "/spec/identityRef/name", json!("shared"))],
        ),
        (
            "placement",
            json!({
                "datacenter": "dc2", "datastore": "ds2", "folder": "f2", "resourcePool": "rp2", "network": "n2",
                "storagePolicy": "fast",
            }),
            vec![
                (Machine, "/spec/template/spec/datacenter", json!("dc2")),
                (Machine, "/spec/template/spec/datastore", json!("ds2")),
                (Machine, "/spec/template/spec/folder", json!("f2")),
                (Machine, "/spec/template/spec/resourcePool", json!("rp2")),
                (
                    Machine,
                    "/spec/template/spec/network/devices/0/networkName",
                    json!("n2"),
                ),
                (
                    Machine,
                    "/spec/template/spec/network/devices/0/dhcp4",
                    json!(true),
                ),
                (Machine, "/spec/template/spec/storagePolicyName", json!("fast")),
            ],
        ),
        (
            "vmTemplate",
            json!("other"),
            vec![(Machine, "/spec/template/spec/template", json!("other"))],
        ),
        (
            "machine",
            json!({"numCPUs": 4, "memoryMiB": 4096, "diskGiB": 40, "cloneMode": "linkedClone"}),
            vec![
                (Machine, "/spec/template/spec/numCPUs", json!(4)),
                (Machine, "/spec/template/spec/memoryMiB", json!(4096)),
                (Machine, "/spec/template/spec/diskGiB", json!(40)),
                (Machine, "/spec/template/spec/cloneMode", json!("linkedClone")),
            ],
        ),
        (
            "sshKey",
            json!("ssh-ed25519 BBBB \"b\""),
            vec![(
                Bootstrap,
                "/spec/template/spec/users/0/sshAuthorizedKeys",
                json!(["ssh-ed25519 BBBB \"b\""]),
            )],
        ),
    ]
}

fn vsphere_refuses() -> Vec<Refused> {
    vec![
        ("infraServer", json!({"thumbprint": "AA:BB"})),
        ("credsSecretName", json!("")),
        ("placement", json!({"datacenter": "dc"})),
        ("vmTemplate", json!("")),
        ("machine", json!({"numCPUs": 1})),
        ("sshKey", json!(5)),
        ("controlPlaneIpAddr", json!("a name")),
    ]
}

fn metal3() -> Vec<Change> {
    use Part::{Bootstrap, ControlPlane, Infrastructure, Machine};
    let large = json!({"key": "size", "operator": "in", "values": ["l", "xl"]});
    vec![
        (
            "controlPlaneEndpoint",
            json!({"host": "192.0.2.11", "port": 30443}),
            vec![
                (
                    Infrastructure,
                    "/spec/controlPlaneEndpoint",
                    json!({"host": "192.0.2.11", "port": 30443}),
                ),
                (ControlPlane, "/spec/network/serviceAddress", json!("192.0.2.11")),
            ],
        ),
        (
            "image",
            json!({"url": "http://other.example.org/i", "checksum": "b", "checksumType": "md5", "format": "raw"}),
            vec![(
                Machine,
                "/spec/template/spec/image",
                json!({
                    "url": "http://other.example.org/i", "checksum": "b", "checksumType": "md5", "diskFormat": "raw",
                }),
            )],
        ),
        (
            "workerDataTemplate",
            json!("other"),
            vec![(Machine, "/spec/template/spec/dataTemplate/name", json!("other"))],
        ),
        (
            "host",
            json!({"selector": {"matchExpressions": [large]}, "automatedCleaningMode": "disabled"}),
            vec![
                (
                    Machine,
                    "/spec/template/spec/hostSelector/matchExpressions",
                    json!([large]),
                ),
                (
                    Machine,
                    "/spec/template/spec/automatedCleaningMode",
                    json!("disabled"),
                ),
            ],
        ),
        (
            "sshKeys",
            json!(["ssh-ed25519 BBBB b"]),
            vec![(
                Bootstrap,
                "/spec/template/spec/users/0/sshAuthorizedKeys",
                json!(["ssh-ed25519 BBBB b"]),
            )],
        ),
    ]
}

fn metal3_refuses() -> Vec<Refused> {
    vec![
        ("controlPlaneEndpoint", json!({"host": "a name"})),
        (
            "image",
            json!({"url": "http://a", "checksum": "b", "format": "iso"}),
        ),
        ("workerDataTemplate", json!("")),
        ("host", json!({"automatedCleaningMode": "never"})),
        ("sshKeys", json!([""])),
    ]
}

fn openstack() -> Vec<Change> {
    use Part::{Infrastructure, Machine};
    vec![
        (
            "identityRef",
            json!({"name": "other", "cloudName": "other-cloud"}),
            vec![
                (Infrastructure, "/spec/identityRef/name", json!("other")),
                (
                    Infrastructure,
                    "/spec/identityRef/cloudName",
                    json!("other-cloud"),
                ),
            ],
        ),
        (
            "externalNetworkID",
            json!(NETWORK),
            vec![(Infrastructure, "/spec/externalNetwork/id", json!(NETWORK))],
        ),
        (
            "dnsNameservers",
            json!(["192.0.2.54", "192.0.2.55"]),
            vec![(
                Infrastructure,
                "/spec/managedSubnets/0/dnsNameservers",
                json!(["192.0.2.54", "192.0.2.55"]),
            )],
        ),
        (
            "nodeCIDR",
            json!("10.7.0.0/24"),
            vec![(
                Infrastructure,
                "/spec/managedSubnets/0/cidr",
                json!("10.7.0.0/24"),
            )],
        ),
        (
            "imageName",
            json!("other"),
            vec![(Machine, "/spec/template/spec/image/filter/name", json!("other"))],
        ),
        (
            "flavor",
            json!("m1.other"),
            vec![(Machine, "/spec/template/spec/flavor", json!("m1.other"))],
        ),
        (
            "sshKeyName",
            json!("other"),
            vec![(Machine, "/spec/template/spec/sshKeyName", json!("other"))],
        ),
    ]
}

fn openstack_refuses() -> Vec<Refused> {
    vec![
        ("identityRef", json!({"name": "a"})),
        ("externalNetworkID", json!("a name")),
        ("dnsNameservers", json!([])),
        ("nodeCIDR", json!("all")),
        ("imageName", json!("")),
        ("flavor", json!("")),
        ("sshKeyName", json!(5)),
        ("serviceAddress", json!("a name")),
    ]
}
