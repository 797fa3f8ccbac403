//! The attacks, by what they are aimed at.

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, GetOptions,
    LeaseTimeToLiveOptions, Permission, PermissionType, PutOptions, Txn, TxnOp, UserAddOptions, WatchOptions,
};

use super::tried::Tried;

/// End of the key space.
const END: &[u8] = b"\0";

/// A tenant that attacks its neighbour.
pub struct Attacker {
    /// A connection with its certificate.
    pub client: Client,
    /// Its schema.
    pub schema: String,
    /// Its user.
    pub user: String,
    /// Schema of its neighbour, which sorts after its own.
    pub neighbour: String,
    /// The neighbour's user.
    pub neighbours_user: String,
    /// A lease of the neighbour, with one of the neighbour's keys.
    pub neighbours_lease: i64,
}

impl Attacker {
    fn own(&self) -> String {
        format!("/{}/registry/x", self.schema)
    }

    fn prefix(&self) -> String {
        format!("/{}/", self.schema)
    }

    /// Keys that are not the attacker's, each with its name.
    fn targets(&self) -> [(&'static str, String); 6] {
        let (own, neighbour) = (&self.schema, &self.neighbour);
        [
            ("a neighbour's key", format!("/{neighbour}/registry/secrets/x")),
            // Its prefix begins with the attacker's, without the slash.
            ("the key of a longer name", format!("/{own}2/registry/x")),
            ("the own mark", format!("/capi-kamaji/schema/{own}")),
            ("a neighbour's mark", format!("/capi-kamaji/schema/{neighbour}")),
            (
                "the mark of a neighbour's user",
                format!("/capi-kamaji/user/{}", self.neighbours_user),
            ),
            ("a key of nobody", "/registry/secrets/x".to_owned()),
        ]
    }

    /// Single keys.
    pub async fn keys(&self, tried: &mut Tried) {
        for (name, key) in &self.targets() {
            let key = key.as_str();
            let mut to = self.client.clone();
            tried.request(format!("get {name}"), to.get(key, None)).await;
            let stale = GetOptions::new().with_serializable();
            tried
                .request(format!("serializable get of {name}"), to.get(key, Some(stale)))
                .await;
            tried
                .request(format!("put {name}"), to.put(key, "mine", None))
                .await;
            let before = PutOptions::new().with_prev_key();
            tried
                .request(
                    format!("put {name} with PrevKv"),
                    to.put(key, "mine", Some(before)),
                )
                .await;
            tried
                .request(format!("delete {name}"), to.delete(key, None))
                .await;
            let before = DeleteOptions::new().with_prev_key();
            tried
                .request(format!("delete {name} with PrevKv"), to.delete(key, Some(before)))
                .await;
        }
    }

    /// Ranges that begin in the attacker's keys and do not end there, or contain them.
    fn ranges_beyond(&self) -> [(&'static str, Vec<u8>, Vec<u8>); 7] {
        let beyond = format!("/{}0", self.neighbour);
        [
            ("from an own key to the end", self.own().into(), END.into()),
            ("from the own prefix to the end", self.prefix().into(), END.into()),
            (
                "from an own key to the neighbour's last",
                self.own().into(),
                beyond.into(),
            ),
            (
                "one key more than the own prefix",
                self.prefix().into(),
                format!("/{}0\0", self.schema).into(),
            ),
            (
                "a neighbour's prefix",
                format!("/{}/", self.neighbour).into(),
                format!("/{}0", self.neighbour).into(),
            ),
            ("all marks", b"/capi-kamaji/".into(), b"/capi-kamaji0".into()),
            ("all keys", END.into(), END.into()),
        ]
    }

    /// Ranges of keys.
    pub async fn ranges(&self, tried: &mut Tried) {
        for (name, key, end) in self.ranges_beyond() {
            let mut to = self.client.clone();
            let range = || GetOptions::new().with_range(end.clone());
            tried
                .request(format!("get {name}"), to.get(key.clone(), Some(range())))
                .await;
            let count = range().with_count_only();
            tried
                .request(format!("count {name}"), to.get(key.clone(), Some(count)))
                .await;
            let deleted = DeleteOptions::new().with_range(end.clone());
            tried
                .request(format!("delete {name}"), to.delete(key, Some(deleted)))
                .await;
        }
    }

    /// Requests inside of a transaction, and inside of one in it.
    pub async fn transactions(&self, tried: &mut Tried) {
        for (name, key) in &self.targets() {
            let key = key.as_str();
            let requests: [(&str, TxnOp); 4] = [
                ("get", TxnOp::get(key, None)),
                ("put", TxnOp::put(key, "mine", None)),
                (
                    "put with PrevKv",
                    TxnOp::put(key, "mine", Some(PutOptions::new().with_prev_key())),
                ),
                ("delete", TxnOp::delete(key, None)),
            ];
            for (what, request) in requests {
                let once = Txn::new().and_then([request.clone()]);
                let nested = Txn::new().and_then([TxnOp::txn(once.clone())]);
                let twice = Txn::new().and_then([TxnOp::txn(nested.clone())]);
                let otherwise = Txn::new()
                    .when([Compare::version(self.own(), CompareOp::Less, 0)])
                    .or_else([TxnOp::txn(Txn::new().or_else([request.clone()]))]);
                let hidden =
                    Txn::new().and_then([TxnOp::put(self.own(), "own", None), TxnOp::txn(once.clone())]);
                for (how, transaction) in [
                    ("a transaction", once),
                    ("a nested transaction", nested),
                    ("a transaction nested twice", twice),
                    ("the other branch of a nested transaction", otherwise),
                    ("a transaction nested beside an own key", hidden),
                ] {
                    let mut to = self.client.clone();
                    tried
                        .request(format!("{what} {name} in {how}"), to.txn(transaction))
                        .await;
                }
            }
            let compared = Txn::new().when([Compare::value(key, CompareOp::Greater, "m")]);
            let nested = Txn::new().and_then([TxnOp::txn(compared.clone())]);
            let mut to = self.client.clone();
            tried.request(format!("compare {name}"), to.txn(compared)).await;
            tried
                .request(format!("compare {name} in a nested transaction"), to.txn(nested))
                .await;
        }
        for (name, key, end) in self.ranges_beyond() {
            let get = TxnOp::get(key.clone(), Some(GetOptions::new().with_range(end.clone())));
            let delete = TxnOp::delete(key, Some(DeleteOptions::new().with_range(end)));
            for (what, request) in [("get", get), ("delete", delete)] {
                let once = Txn::new().and_then([request]);
                let nested = Txn::new().and_then([TxnOp::txn(once.clone())]);
                let mut to = self.client.clone();
                tried
                    .request(format!("{what} {name} in a transaction"), to.txn(once))
                    .await;
                tried
                    .request(format!("{what} {name} in a nested transaction"), to.txn(nested))
                    .await;
            }
        }
    }

    /// Watches. One that etcd accepts has succeeded, whatever it reports.
    pub async fn watches(&self, tried: &mut Tried) {
        for (name, key) in self.targets() {
            self.watch(tried, name, key.into(), None).await;
        }
        for (name, key, end) in self.ranges_beyond() {
            self.watch(tried, name, key, Some(end)).await;
        }
    }

    async fn watch(&self, tried: &mut Tried, name: &str, key: Vec<u8>, end: Option<Vec<u8>>) {
        let everything = || {
            let options = WatchOptions::new().with_start_revision(1).with_prev_key();
            match &end {
                Some(end) => options.with_range(end.clone()),
                None => options,
            }
        };
        let mut to = self.client.clone();
        let opened = async move {
            let mut stream = to.watch(key, Some(everything())).await?;
            match stream.message().await? {
                Some(first) if !first.canceled() => Ok(()),
                Some(first) => Err(Error::WatchError(first.cancel_reason().to_owned())),
                None => Err(Error::WatchError("the stream ended".to_owned())),
            }
        };
        tried.request(format!("watch {name}"), opened).await;
    }

    /// The lease of a neighbour.
    pub async fn leases(&self, tried: &mut Tried) {
        let lease = self.neighbours_lease;
        let mut to = self.client.clone();
        let leased = || PutOptions::new().with_lease(lease);
        tried
            .request(
                "put an own key with a neighbour's lease",
                to.put(self.own(), "own", Some(leased())),
            )
            .await;
        let once = Txn::new().and_then([TxnOp::put(self.own(), "own", Some(leased()))]);
        let nested = Txn::new().and_then([TxnOp::txn(once.clone())]);
        tried.request("the same in a transaction", to.txn(once)).await;
        tried
            .request("the same in a nested transaction", to.txn(nested))
            .await;
        let keys = LeaseTimeToLiveOptions::new().with_keys();
        tried
            .request(
                "read the keys of a neighbour's lease",
                to.lease_time_to_live(lease, Some(keys)),
            )
            .await;
        tried.request("list leases", to.leases()).await;
        tried
            .request("keep a neighbour's lease alive", keep_alive(to.clone(), lease))
            .await;
        tried
            .request("revoke a neighbour's lease", to.lease_revoke(lease))
            .await;
    }

    /// Users and roles.
    pub async fn users(&self, tried: &mut Tried) {
        let mut to = self.client.clone();
        let all = || Permission::new(PermissionType::Readwrite, END).with_all_keys();
        let no_password = Some(UserAddOptions::new().with_no_pwd());
        let (user, other) = (self.user.as_str(), self.neighbours_user.as_str());
        tried.request("list users", to.user_list()).await;
        tried.request("list roles", to.role_list()).await;
        tried.request("read a neighbour's user", to.user_get(other)).await;
        tried
            .request("read a neighbour's role", to.role_get(self.neighbour.as_str()))
            .await;
        tried
            .request("add a user", to.user_add("stranger", "", no_password))
            .await;
        tried.request("add a role", to.role_add("stranger")).await;
        tried
            .request(
                "give a neighbour a password",
                to.user_change_password(other, "mine"),
            )
            .await;
        tried
            .request("give root a password", to.user_change_password("root", "mine"))
            .await;
        tried
            .request("take the role root", to.user_grant_role(user, "root"))
            .await;
        tried
            .request(
                "take a neighbour's role",
                to.user_grant_role(user, self.neighbour.as_str()),
            )
            .await;
        tried
            .request(
                "grant the own role all keys",
                to.role_grant_permission(self.schema.as_str(), all()),
            )
            .await;
        tried
            .request(
                "take a neighbour's permission away",
                to.role_revoke_permission(self.neighbour.as_str(), format!("/{}/", self.neighbour), None),
            )
            .await;
        tried
            .request(
                "take a neighbour's role away",
                to.user_revoke_role(other, self.neighbour.as_str()),
            )
            .await;
        tried
            .request(
                "delete a neighbour's role",
                to.role_delete(self.neighbour.as_str()),
            )
            .await;
        tried
            .request("delete a neighbour's user", to.user_delete(other))
            .await;
        tried.request("delete root", to.user_delete("root")).await;
        tried
            .request(
                "guess root's password",
                to.auth_client()
                    .authenticate("root".to_owned(), "root".to_owned()),
            )
            .await;
    }

    /// What etcd keeps for those who maintain it.
    pub async fn maintenance(&self, tried: &mut Tried) {
        let mut to = self.client.clone();
        tried.request("take a snapshot", snapshot(to.clone())).await;
        tried.request("hash the store", to.hash()).await;
        tried.request("hash the keys", to.hash_kv(0)).await;
        tried.request("defragment", to.defragment()).await;
        tried.request("compact", to.compact(2, None)).await;
        let physical = CompactionOptions::new().with_physical();
        tried
            .request("compact physically", to.compact(2, Some(physical)))
            .await;
    }

    /// Members and leadership.
    pub async fn members(&self, tried: &mut Tried) {
        let mut to = self.client.clone();
        tried
            .request("add a member", to.member_add(["http://127.0.0.1:1"], None))
            .await;
        tried
            .request(
                "change a member",
                to.member_update(1, ["http://127.0.0.1:1".to_owned()]),
            )
            .await;
        tried.request("promote a member", to.member_promote(1)).await;
        tried.request("remove a member", to.member_remove(1)).await;
        tried.request("move the leader", to.move_leader(1)).await;
    }

    /// What is tried while an alarm says that etcd is out of space.
    pub async fn out_of_space(&self, tried: &mut Tried) {
        let mut to = self.client.clone();
        let key = format!("/{}/registry/secrets/x", self.neighbour);
        tried
            .request("get a neighbour's key, out of space", to.get(key.as_str(), None))
            .await;
        tried
            .request(
                "delete a neighbour's key, out of space",
                to.delete(key.as_str(), None),
            )
            .await;
        tried
            .request(
                "get a neighbour's key in a nested transaction, out of space",
                to.txn(Txn::new().and_then([TxnOp::txn(Txn::new().and_then([TxnOp::get(key, None)]))])),
            )
            .await;
        tried
            .request(
                "revoke a neighbour's lease, out of space",
                to.lease_revoke(self.neighbours_lease),
            )
            .await;
        tried
            .request(
                "delete a neighbour's user, out of space",
                to.user_delete(self.neighbours_user.as_str()),
            )
            .await;
        tried
            .request(
                "end the alarm",
                to.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None),
            )
            .await;
        tried
            .request("disable authentication, out of space", to.auth_disable())
            .await;
    }

    /// What would end isolation or the service for everybody.
    pub async fn authentication(&self, tried: &mut Tried) {
        let mut to = self.client.clone();
        tried
            .request(
                "raise the alarm NOSPACE",
                to.alarm(AlarmAction::Activate, AlarmType::Nospace, None),
            )
            .await;
        tried
            .request(
                "raise the alarm CORRUPT",
                to.alarm(AlarmAction::Activate, AlarmType::Corrupt, None),
            )
            .await;
        tried.request("disable authentication", to.auth_disable()).await;
    }
}

/// A lease is kept alive by a stream, whose first answer counts.
async fn keep_alive(mut to: Client, lease: i64) -> Result<(), Error> {
    let (mut keeper, mut answers) = to.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    answers.message().await.map(|_| ())
}

/// A snapshot is refused with its first part.
async fn snapshot(mut to: Client) -> Result<(), Error> {
    to.snapshot().await?.message().await.map(|_| ())
}
