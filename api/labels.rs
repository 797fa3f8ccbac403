//! Labels, annotations, finalizers, Secret types and keys, field managers, namespaces: every name that other programs or
//! other parts of this one look up. Owns the spelling only. Names of Kamaji, of the Go provider and of Cluster API are kept
//! as those projects define them, so that existing objects can be taken over.

/// Field managers of server-side apply, one a controller.
pub mod field_manager {
    /// Control plane provider.
    pub const CONTROL_PLANE: &str = "kamaji-controlplane";
    /// Bootstrap provider.
    pub const BOOTSTRAP: &str = "kamaji-bootstrap";
    /// Hosting engine.
    pub const HOSTING: &str = "kamaji-hosting";
    /// Control plane provider, for the one field of infrastructure objects that it writes.
    pub const ENDPOINT: &str = "kamaji-endpoint";
}

/// Namespaces of the shipped components and of the managed datastores.
pub mod namespace {
    /// Control plane provider and hosting engine.
    pub const CONTROL_PLANE: &str = "capi-kamaji-control-plane-system";
    /// Bootstrap provider.
    pub const BOOTSTRAP: &str = "capi-kamaji-bootstrap-system";
    /// Members, Secrets and PersistentVolumeClaims of managed DataStores. It has none of clusterctl's labels, because
    /// `clusterctl upgrade` deletes what has them.
    pub const DATASTORES: &str = "capi-kamaji-datastores";
    /// In a workload cluster: the namespace in which machines report failures of their join.
    pub const TENANT_REPORTS: &str = "kamaji-bootstrap";
}

/// Names of Cluster API, version v1beta2 of the contract.
pub mod capi {
    /// Label of everything that belongs to a Cluster. Cluster API does not cache Secrets without it.
    pub const CLUSTER_NAME: &str = "cluster.x-k8s.io/cluster-name";
    /// Annotation that pauses an object, whatever its value.
    pub const PAUSED: &str = "cluster.x-k8s.io/paused";
    /// Annotation of an infrastructure object that its provider leaves alone; its value says who looks after it instead.
    pub const MANAGED_BY: &str = "cluster.x-k8s.io/managed-by";
    /// Label of control-plane Machines.
    pub const CONTROL_PLANE: &str = "cluster.x-k8s.io/control-plane";
    /// Label of objects owned by a topology.
    pub const TOPOLOGY_OWNED: &str = "topology.cluster.x-k8s.io/owned";
    /// Type of the Secrets of the contract.
    pub const SECRET_TYPE: &str = "cluster.x-k8s.io/secret";
    /// CRD label whose value lists the versions that follow contract v1beta2.
    pub const CONTRACT: &str = "cluster.x-k8s.io/v1beta2";
    /// CRD label whose value lists the versions that follow contract v1beta1, which Cluster API still accepts.
    pub const CONTRACT_V1BETA1: &str = "cluster.x-k8s.io/v1beta1";
    /// Annotation that `clusterctl move` sets on the objects that it deletes at the source: their data must be kept.
    pub const DELETE_FOR_MOVE: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";
    /// Annotation that makes `clusterctl move` wait, and then give up.
    pub const BLOCK_MOVE: &str = "clusterctl.cluster.x-k8s.io/block-move";
    /// Annotation that makes `clusterctl` skip the name check of a CRD outside the contract.
    pub const SKIP_CRD_NAME_CHECK: &str = "clusterctl.cluster.x-k8s.io/skip-crd-name-preflight-check";
    /// Group of Cluster, Machine, MachinePool.
    pub const GROUP: &str = "cluster.x-k8s.io";
    /// Taint of a Node whose labels are not synchronized yet.
    pub const UNINITIALIZED_TAINT: &str = "node.cluster.x-k8s.io/uninitialized";

    /// Suffix of the cluster's kubeconfig Secret.
    pub const KUBECONFIG_SUFFIX: &str = "-kubeconfig";
    /// Suffix of the cluster's CA Secret.
    pub const CA_SUFFIX: &str = "-ca";
    /// Key of the kubeconfig Secret and of the bootstrap Secret.
    pub const VALUE_KEY: &str = "value";
    /// Key of the bootstrap Secret that names the format of `value`.
    pub const FORMAT_KEY: &str = "format";
}

/// Names of Kamaji, kept so that existing tenants can be taken over.
pub mod kamaji {
    /// Group of TenantControlPlane and DataStore.
    pub const GROUP: &str = "kamaji.clastix.io";
    /// Label: [`PROJECT_VALUE`] on every object of the engine.
    pub const PROJECT: &str = "kamaji.clastix.io/project";
    /// Value of [`PROJECT`].
    pub const PROJECT_VALUE: &str = "kamaji";
    /// Label: name of the TenantControlPlane; the selector of its Service and Deployment.
    pub const NAME: &str = "kamaji.clastix.io/name";
    /// Label: role of an object.
    pub const COMPONENT: &str = "kamaji.clastix.io/component";
    /// Prefix of pod labels that carry the digest of a mounted Secret.
    pub const COMPONENT_DIGEST_PREFIX: &str = "component.kamaji.clastix.io/";
    /// Label of Secrets that can be rotated: [`LIFECYCLE_X509`] or [`LIFECYCLE_KUBECONFIG`].
    pub const CERTIFICATE_LIFECYCLE: &str = "kamaji.clastix.io/certificate_lifecycle_controller";
    /// Value of [`CERTIFICATE_LIFECYCLE`]: certificate and key.
    pub const LIFECYCLE_X509: &str = "x509";
    /// Value of [`CERTIFICATE_LIFECYCLE`]: kubeconfig.
    pub const LIFECYCLE_KUBECONFIG: &str = "kubeconfig";
    /// Label of generated kubeconfigs: the generator.
    pub const MANAGED_BY: &str = "kamaji.clastix.io/managed-by";
    /// Label of generated kubeconfigs: the tenant.
    pub const MANAGED_FOR: &str = "kamaji.clastix.io/managed-for";
    /// Label of Secrets of the Go provider: cluster.
    pub const CLUSTER: &str = "kamaji.clastix.io/cluster";
    /// Label of Secrets of the Go provider: role of the Secret.
    pub const SECRET: &str = "kamaji.clastix.io/secret";
    /// Label of Secrets of the Go provider: tenant.
    pub const TCP: &str = "kamaji.clastix.io/tcp";
    /// Label of migration Jobs: name of the TenantControlPlane.
    pub const JOB_TCP_NAME: &str = "tcp.kamaji.clastix.io/name";
    /// Label of migration Jobs: namespace of the TenantControlPlane.
    pub const JOB_TCP_NAMESPACE: &str = "tcp.kamaji.clastix.io/namespace";

    /// Annotation that pauses reconciliation, including deletion, whatever its value.
    pub const PAUSED: &str = "kamaji.clastix.io/paused";
    /// Annotation of a Secret: an empty value requests a rotation; the engine replaces it with the time (RFC 3339).
    pub const ROTATE: &str = "certs.kamaji.clastix.io/rotate";
    /// Annotation: which key of `<tcp>-admin-kubeconfig` becomes `<cluster>-kubeconfig`.
    pub const KUBECONFIG_SECRET_KEY: &str = "kamaji.clastix.io/kubeconfig-secret-key";
    /// Annotation of the engine's objects: digest of their data.
    pub const CHECKSUM: &str = "kamaji.clastix.io/checksum";
    /// Pod annotation: digest of the datastore's configuration.
    pub const STORAGE_CONFIG: &str = "storage.kamaji.clastix.io/config";
    /// Pod annotation: digest of the datastore's certificate.
    pub const STORAGE_CERTIFICATE: &str = "storage.kamaji.clastix.io/certificate";

    /// Finalizer of a TenantControlPlane: its data in the DataStore.
    pub const FINALIZER: &str = "finalizer.kamaji.clastix.io";
    /// Finalizer of a TenantControlPlane that Kamaji sets for its tenant clients; it is only removed here.
    pub const SOOT_FINALIZER: &str = "finalizer.kamaji.clastix.io/soot";
    /// Finalizer of `<tcp>-datastore-config`.
    pub const DATASTORE_SECRET_FINALIZER: &str = "finalizer.kamaji.clastix.io/datastore-secret";
    /// Finalizer of a DataStore. It is removed when no tenant uses the DataStore.
    pub const DATASTORE_FINALIZER: &str = "kamaji.clastix.io/TenantControlPlane";

    /// Lease of a running Kamaji operator.
    pub const LEASE: &str = "kamaji.clastix.io";
    /// Lease of a running Kamaji kubeconfig generator.
    pub const GENERATOR_LEASE: &str = "kubeconfiggenerator.kamaji.clastix.io";
}

/// Names of the Go control plane provider.
pub mod go_provider {
    /// Its finalizer on a KamajiControlPlane; it is only removed here.
    pub const FINALIZER: &str = "ecr.kamaji.clastix.io/finalizer";
    /// Field managers of its writes: the name of its binary. It wrote whole objects, so it owns fields of the spec.
    pub const FIELD_MANAGERS: [&str; 1] = ["manager"];
}

/// Names of this project.
pub mod ours {
    /// Label of a ClusterRole, with the value `true`: its rules are added to those of the control plane provider, which
    /// writes the endpoint into infrastructure objects.
    pub const AGGREGATE_TO_INFRA: &str = "controlplane.kamaji.clastix.io/aggregate-to-infra";
    /// Value of `cluster.x-k8s.io/managed-by` on an infrastructure object that the control plane provider reports as
    /// provisioned.
    pub const MANAGES_INFRA: &str = "kamaji";
    /// Value of `kamaji.clastix.io/paused` on a TenantControlPlane that is paused because its Cluster is.
    pub const PAUSED_WITH_CLUSTER: &str = "with-cluster";
    /// Finalizer of a KamajiControlPlane.
    pub const CONTROL_PLANE_FINALIZER: &str = "kamaji.controlplane.cluster.x-k8s.io/finalizer";
    /// Label of every child object: the field manager that created it. Watches of children select by it.
    pub const MANAGED_BY: &str = "capi-kamaji.io/managed-by";
    /// Label of objects outside the owner's namespace or cluster: UID of their owner.
    pub const OWNER_UID: &str = "capi-kamaji.io/owner-uid";
    /// Label of objects in a tenant: UID of the management cluster's kube-system namespace.
    pub const MANAGEMENT_CLUSTER: &str = "capi-kamaji.io/management-cluster";
    /// Label of bootstrap tokens in a tenant: UID of its Cluster object, which a move to another management cluster
    /// changes.
    pub const CLUSTER_UID: &str = "capi-kamaji.io/cluster-uid";
    /// Label of the parts of a managed DataStore: its name.
    pub const DATASTORE: &str = "capi-kamaji.io/datastore";
    /// Annotation of applied objects: digest of the desired state.
    pub const DIGEST: &str = "capi-kamaji.io/digest";
    /// Annotation of issued Secrets: digest of the inputs of the certificate.
    pub const INPUTS_HASH: &str = "capi-kamaji.io/inputs-hash";
    /// Annotation of a bootstrap data Secret: where the machine takes the name of its Node from. Without it that is what the
    /// KamajiConfig itself says, or the name of the Machine.
    pub const NAME_SOURCE: &str = "capi-kamaji.io/name-source";
    /// Annotation of issued Secrets: start of the certificate (RFC 3339).
    pub const NOT_BEFORE: &str = "capi-kamaji.io/not-before";
    /// Annotation of issued Secrets: end of the certificate (RFC 3339); absent on key pairs without one.
    pub const NOT_AFTER: &str = "capi-kamaji.io/not-after";
    /// Annotation of issued Secrets: digest of the data. Pods that mount the Secret are replaced when it changes.
    pub const CONTENT_HASH: &str = "capi-kamaji.io/content-hash";
    /// Annotation of issued Secrets: SHA-256 of the certificate of the issuing CA; on a CA, of its own certificate.
    pub const CA_FINGERPRINT: &str = "capi-kamaji.io/ca-fingerprint";
    /// Annotation of a TenantControlPlane: the schema that was generated for it, in addition to `status.storage.setup`,
    /// so that it survives the loss of the status (a backup restores objects without it).
    pub const SCHEMA: &str = "capi-kamaji.io/datastore-schema";
    /// Annotation of a TenantControlPlane: the user that was generated for it.
    pub const USER: &str = "capi-kamaji.io/datastore-user";
    /// Annotation of a TenantControlPlane that ends the wait for an unreachable DataStore during deletion: the data is
    /// left in the DataStore.
    pub const ABANDON_DATA: &str = "capi-kamaji.io/abandon-data";
    /// Annotation of issued Secrets: the certificate expires together with its CA, so issuing it again would not extend
    /// it.
    pub const ENDS_WITH_AUTHORITY: &str = "capi-kamaji.io/ends-with-authority";
    /// Annotation of a TenantControlPlane that accepts the loss of a CA or ServiceAccount key pair whose Secret was
    /// deleted or modified. Its value is the digest of the lost one, as in `status.certificates.<x>.checksum` and in the
    /// message of the condition; several digests are separated by commas. A deleted Secret is generated again, a
    /// modified one is used as it is. Nodes, kubeconfigs and tokens that trust the old one no longer work.
    pub const ACCEPT_NEW_IDENTITY: &str = "capi-kamaji.io/accept-new-identity";
    /// Annotation of a TenantControlPlane: digests of the trust roots that it was built with, and of the key of a CA that a
    /// user provides, as `<component>=<digest>`, separated by commas. Written by the engine, in addition to
    /// `status.certificates`, so that it survives the loss of the status.
    pub const IDENTITY: &str = "capi-kamaji.io/identity";
    /// Annotation of a DataStore: id of the datastore with its data, which the datastore holds too. Written by the engine
    /// before the DataStore is ready, in addition to `status.storeID`, so that it survives the loss of the status.
    pub const STORE_ID: &str = "capi-kamaji.io/store-id";
    /// Annotation of a managed DataStore: UID of the PersistentVolumeClaim with its data.
    pub const STORE_CLAIM: &str = "capi-kamaji.io/store-claim";
    /// Annotation of a DataStore that accepts the loss of its data. Its value is the id of the lost datastore, as in
    /// [`STORE_ID`] and in the message of the condition, so that the next loss is reported again. An empty datastore is
    /// then taken; control planes whose data was lost get no new one in it.
    pub const ACCEPT_DATA_LOSS: &str = "capi-kamaji.io/accept-data-loss";
    /// Annotation of a DataStore that accepts a version of etcd which does not keep tenants apart. Its value is that
    /// version, as in the message of the condition `VersionSafe`. New tenants are then set up in it.
    pub const ACCEPT_ETCD_VERSION: &str = "capi-kamaji.io/accept-etcd-version";
    /// Annotation of a TenantControlPlane: number of Ready worker Machines of its Cluster. Written by the control plane
    /// provider; a change is the occasion to try whether the API server reaches the nodes.
    pub const READY_WORKERS: &str = "capi-kamaji.io/ready-workers";
    /// Annotation of a TenantControlPlane: [`DISABLED`] removes NodeRestriction from the admission plugins. A node can
    /// then modify other Nodes and the pods on them.
    pub const NODE_RESTRICTION: &str = "capi-kamaji.io/node-restriction";
    /// Annotation of a TenantControlPlane: with [`DISABLED`] no NetworkPolicy is created for its pods.
    pub const NETWORK_POLICY: &str = "capi-kamaji.io/network-policy";
    /// Annotation of a TenantControlPlane: [`ENABLED`] makes the API server verify the serving certificates of kubelets.
    /// `kubectl logs` and `kubectl exec` then fail on nodes with self-signed certificates.
    pub const VERIFY_KUBELETS: &str = "capi-kamaji.io/verify-kubelets";
    /// Value of an annotation that turns something on.
    pub const ENABLED: &str = "enabled";
    /// Value of an annotation that turns something off.
    pub const DISABLED: &str = "disabled";
    /// Annotation of the pod template: time of the last restart that `rollout.after` requested (RFC 3339).
    pub const RESTARTED_AT: &str = "capi-kamaji.io/restarted-at";
    /// Suffix of the Secret with the bootstrap provider's own kubeconfig for a tenant, key [`super::capi::VALUE_KEY`]:
    /// `<cluster>-kamaji-bootstrap`. The control plane provider creates it beside `<cluster>-kubeconfig`, with the label
    /// [`super::capi::CLUSTER_NAME`].
    pub const BOOTSTRAP_KUBECONFIG_SUFFIX: &str = "-kamaji-bootstrap";
    /// Suffix of the engine's Secret from which the former is copied: `<tcp>-bootstrap-kubeconfig`, with the same key,
    /// beside `<tcp>-admin-kubeconfig`. The engine does not know Clusters; the control plane provider does.
    pub const TENANT_BOOTSTRAP_SUFFIX: &str = "-bootstrap-kubeconfig";
    /// Annotation of a KamajiControlPlane: the source of `spec.controlPlaneEndpoint`, written together with it.
    pub const ENDPOINT_ORIGIN: &str = "capi-kamaji.io/endpoint-origin";
    /// Annotation of a KamajiControlPlane: type, port and address of the Service that has the published endpoint.
    pub const PUBLISHED_SERVICE: &str = "capi-kamaji.io/published-service";
    /// Annotation of a KamajiControlPlane or a TenantControlPlane: the `host:port` to which a published endpoint may move,
    /// as the message of the condition prints it. It permits this one move: any other needs another value.
    pub const MOVE_ENDPOINT: &str = "capi-kamaji.io/move-endpoint";
    /// Annotation of a TenantControlPlane: what it is published at, as `endpoint=<host:port>`, `service=<type>`, and, where
    /// the spec set them, `address=<address>` and `advertise=<address>`, separated by commas. Written by the engine, in
    /// addition to `status.controlPlaneEndpoint`, so that it survives the loss of the status.
    pub const PUBLISHED_ENDPOINT: &str = "capi-kamaji.io/published-endpoint";
    /// Annotation of a TenantControlPlane: endpoints that it was published at before, as `host:port`, with `/NodePort` or
    /// `/LoadBalancer` where the Service had that type, separated by commas. The certificate names them and the Service
    /// serves them for as long as they are listed. The engine adds to the list; a user removes from it.
    pub const FORMER_ENDPOINTS: &str = "capi-kamaji.io/former-endpoints";
    /// Annotation of a copied Secret: digest of its source. If the digest of the source differs, it is copied again.
    pub const SOURCE: &str = "capi-kamaji.io/source";
    /// Group of the bootstrap tokens of our nodes. It differs from kubeadm's group, so that bindings made for kubeadm,
    /// which approve requests automatically, do not apply.
    pub const NODE_BOOTSTRAP_GROUP: &str = "system:bootstrappers:kamaji:nodes";
    /// Name of the DataStore that `--default-datastore=managed` creates.
    pub const DEFAULT_DATASTORE: &str = "default";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finalizers_are_qualified_so_that_the_api_server_does_not_warn() {
        for name in [
            ours::CONTROL_PLANE_FINALIZER,
            kamaji::DATASTORE_SECRET_FINALIZER,
            kamaji::DATASTORE_FINALIZER,
        ] {
            assert_eq!(name.split('/').count(), 2, "{name}");
        }
    }
}
