//! Roles and users of etcd. Each function reads before it writes, and accepts that somebody else wrote at the same time.

use etcd_client::{Client, Permission, PermissionType, UserAddOptions};

use super::{
    super::Error,
    EtcdAdmin,
    answers::{Known, unless},
    prefix,
};

impl EtcdAdmin {
    pub(super) async fn ensure_role(&self, role: &str) -> Result<(), Error> {
        if self.role_exists(role).await? {
            return Ok(());
        }
        let added = self
            .call(&format!("add role {role}"), |mut client: Client| async move {
                client.role_add(role).await
            })
            .await;
        unless(added, Known::Present)?;
        Ok(())
    }

    pub(super) async fn ensure_permission(&self, schema: &str, kind: PermissionType) -> Result<(), Error> {
        let desired = &Permission::new(kind, prefix(schema)).with_prefix();
        let operation = format!("read role {schema}");
        let role = self
            .call(&operation, |mut client: Client| async move {
                client.role_get(schema).await
            })
            .await?;
        if role.permissions().contains(desired) {
            return Ok(());
        }
        self.call(
            &format!("grant role {schema} its prefix"),
            |mut client: Client| async move { client.role_grant_permission(schema, desired.clone()).await },
        )
        .await?;
        Ok(())
    }

    /// Ensures a user without password, who authenticates with a certificate, and with `role` as the only role.
    pub(super) async fn ensure_user(&self, user: &str, role: &str) -> Result<(), Error> {
        let held = self.roles_of(user).await?;
        if held.is_none() {
            let added = self
                .call(&format!("add user {user}"), |mut client: Client| async move {
                    client
                        .user_add(user, "", Some(UserAddOptions::new().with_no_pwd()))
                        .await
                })
                .await;
            unless(added, Known::Present)?;
        }
        let held = held.unwrap_or_default();
        for other in held.iter().filter(|held| *held != role) {
            let revoked = self
                .call(
                    &format!("revoke role {other} from user {user}"),
                    |mut client: Client| async move { client.user_revoke_role(user, other.as_str()).await },
                )
                .await;
            unless(revoked, Known::Absent)?;
        }
        if !held.iter().any(|held| held == role) {
            self.call(
                &format!("grant role {role} to user {user}"),
                |mut client: Client| async move { client.user_grant_role(user, role).await },
            )
            .await?;
        }
        Ok(())
    }

    pub(super) async fn role_exists(&self, role: &str) -> Result<bool, Error> {
        let answer = self
            .call(&format!("read role {role}"), |mut client: Client| async move {
                client.role_get(role).await
            })
            .await;
        Ok(unless(answer, Known::Absent)?.is_some())
    }

    pub(super) async fn roles_of(&self, user: &str) -> Result<Option<Vec<String>>, Error> {
        let answer = self
            .call(&format!("read user {user}"), |mut client: Client| async move {
                client.user_get(user).await
            })
            .await;
        Ok(unless(answer, Known::Absent)?.map(|user| user.roles().to_vec()))
    }

    /// Deletes a role, if it exists.
    pub(super) async fn delete_role(&self, role: &str) -> Result<(), Error> {
        let deleted = self
            .call(&format!("delete role {role}"), |mut client: Client| async move {
                client.role_delete(role).await
            })
            .await;
        unless(deleted, Known::Absent)?;
        Ok(())
    }

    /// Deletes a user, if it exists.
    pub(super) async fn delete_user(&self, user: &str) -> Result<(), Error> {
        let deleted = self
            .call(&format!("delete user {user}"), |mut client: Client| async move {
                client.user_delete(user).await
            })
            .await;
        unless(deleted, Known::Absent)?;
        Ok(())
    }
}
