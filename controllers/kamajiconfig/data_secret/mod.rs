//! First half of a pass: the data Secret, and the token that lives until the machine joined (bootstrap.md 2.1–2.2).

pub mod secret;

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kamaji_api::{bootstrap::TokenStatus, conditions::Reason};
use kube::ResourceExt as _;
use rand::RngCore as _;

use super::{
    observe, preconditions,
    reconcile::Pass,
    status::{self, Progress, seconds},
    stop::Stop,
    tenants::{NodeFacts, Tenant},
    token::{self, Owner, Token},
};
use crate::{k8s::error::Class, runtime::driver::Failure};
use secret::{Data, Life};

/// The token with its state, where the data holds one.
pub type Known = Option<TokenStatus>;

/// Gates 5 to 9: the data Secret and the token.
///
/// # Errors
/// What is missing, or could not be written.
pub async fn hand_out(pass: &Pass<'_>, tenant: &Arc<Tenant>, progress: &mut Progress) -> Result<Known, Stop> {
    let (config, now) = (pass.config, pass.now);
    let known = config.status.as_ref().and_then(|status| status.token.clone());
    let id = known.as_ref().and_then(|token| token.id.clone());
    let life = Life::of(config);
    let created = known
        .as_ref()
        .and_then(|token| token.created.clone())
        .unwrap_or_else(|| seconds(now));
    let expiration = known
        .as_ref()
        .and_then(|token| token.expiration.as_ref())
        .map(|time| time.0);
    let present = id.as_deref().and_then(|id| tenant.has_token(id));
    let row = observe::secret_row(pass.context, config, &config.name_any());
    if pass.announced && row.is_some() && id.is_some() && present != Some(false) {
        // All there; only its end may have to move.
        let due = expiration.is_none_or(|end| life.due_in(end, now) <= 0 && !life.last(created.0, end));
        if !due {
            return Ok(known);
        }
    }
    progress.lost = pass.announced;
    let data = match row {
        Some(row) => {
            let owner = row.owner.as_ref();
            if owner.is_none_or(|owner| Some(&owner.uid) != config.metadata.uid.as_ref()) {
                let owner = owner.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
                return Err(secret::taken(&row.key.name, owner).into());
            }
            secret::find(pass.context, config).await?
        }
        None => None,
    };
    let data = match data {
        Some(data) => {
            // It holds the authority. A crash or a move may have lost that this was said.
            progress.authority = Some(Ok(()));
            data
        }
        None => render(pass, tenant, id.as_deref(), progress).await?,
    };
    progress.lost = false;
    let Some(token) = data.token.clone() else {
        progress.data = Some(status::Data {
            name: config.name_any(),
            figures: Some(data.figures),
        });
        return Ok(None);
    };
    let known = TokenStatus {
        id: Some(token.id().to_owned()),
        expiration: expiration.map(seconds),
        created: Some(created.clone()),
    };
    if pass.announced {
        progress.known = Some(known.clone());
    }
    tenant.wait(pass.key, Some(token.id()), pass.node_name().as_deref());
    if life.over(created.0, now) {
        return Ok(Some(known));
    }
    if joined_before(pass, tenant).await? {
        // Adopted after the machine joined: it needs no token any more.
        announce(pass, data, progress);
        return Ok(Some(known));
    }
    let end = life.end(created.0, now);
    let uid = config.uid().unwrap_or_default();
    let owner = Owner {
        uid: &uid,
        namespace: &pass.key.namespace,
        machine: &pass.machine.name_any(),
        cluster: &pass.cluster.name,
        cluster_uid: tenant.cluster_uid(),
    };
    keep_alive(pass, tenant, &token, &owner, end).await?;
    announce(pass, data, progress);
    Ok(Some(TokenStatus {
        expiration: Some(seconds(end)),
        ..known
    }))
}

fn announce(pass: &Pass<'_>, data: Data, progress: &mut Progress) {
    let before = pass
        .config
        .status
        .as_ref()
        .and_then(|status| status.bootstrap_data.clone());
    let same = before
        .as_ref()
        .is_some_and(|before| before.sha256 == data.figures.sha256);
    progress.data = Some(status::Data {
        name: pass.config.name_any(),
        figures: if same { before } else { Some(data.figures) },
    });
}

/// After a move: the Node of the Machine's name is there already, and the infrastructure knows the Machine.
async fn joined_before(pass: &Pass<'_>, tenant: &Tenant) -> Result<bool, Stop> {
    let machine = pass.machine;
    if machine.spec.bootstrap.data_secret_name.is_none() || machine.spec.provider_id.is_empty() {
        return Ok(false);
    }
    let Some(name) = pass.node_name() else {
        return Ok(false);
    };
    let node = tenant.session.node(&name).await?;
    Ok(node.is_some_and(|node| NodeFacts::of(&node).provider_id == machine.spec.provider_id))
}

/// Makes the token, or moves its end. One that exists with the same secret is this one, whoever wrote its labels.
async fn keep_alive(
    pass: &Pass<'_>,
    tenant: &Tenant,
    token: &Token,
    owner: &Owner<'_>,
    end: Timestamp,
) -> Result<(), Stop> {
    let made = token.to_secret(owner, end);
    let session = &tenant.session;
    let done =
        (pass.announced && session.extend_token(&made).await?) || session.create_token(&made).await?;
    if !done {
        let part = |secret: &Secret| observe::value(secret, "token-secret").map(<[u8]>::to_vec);
        let found = session.token(token.id()).await?;
        if found.is_some_and(|found| part(&found) == part(&made)) {
            session.extend_token(&made).await?;
        } else {
            return Err(Stop::waiting(
                Reason::SecretNameTaken,
                format!(
                    "Secret {}/{} of the tenant holds another token: delete it there, or delete Secret {} here to \
                     have another one drawn before the machine boots",
                    token::NAMESPACE,
                    token::secret_name(token.id()),
                    pass.config.name_any(),
                ),
            ));
        }
    }
    tenant.note_token(token.id(), owner.uid);
    Ok(())
}

/// Gates 5 and 6, then the data: with the token the tenant still has, else with a new one. Everything is checked
/// here too, since the data may have been lost long after it was announced.
async fn render(
    pass: &Pass<'_>,
    tenant: &Tenant,
    id: Option<&str>,
    progress: &mut Progress,
) -> Result<Data, Stop> {
    let (context, config) = (pass.context, pass.config);
    let version = pass.check(progress)?;
    let authority = observe::authority(context, config, &pass.cluster).await;
    match &authority {
        Ok(_) => progress.authority = Some(Ok(())),
        Err(Stop::Closed(gate, _)) => progress.authority = Some(Err(gate.clone())),
        Err(Stop::Failed(_)) => {}
    }
    let authority = authority?;
    let cluster = preconditions::cluster(&pass.cluster.name, pass.observed.cluster.as_deref())?;
    let target = preconditions::target(config, cluster, pass.observed.control_plane.as_deref(), authority)?;
    let references = observe::references(context, config).await?;
    let token = draw(tenant, id).await?;
    secret::create(
        context,
        config,
        &pass.cluster.name,
        (&pass.machine.name_any(), &version),
        (&target, &references),
        &token,
    )
    .await
}

/// The token of a lost data Secret, as the tenant has it; else a new one whose id is free there.
async fn draw(tenant: &Tenant, known: Option<&str>) -> Result<Token, Stop> {
    const TRIES: usize = 5;
    if let Some(id) = known
        && let Some(secret) = tenant.session.token(id).await?
    {
        let part = observe::value(&secret, "token-secret").unwrap_or_default();
        let text = format!("{id}.{}", String::from_utf8_lossy(part));
        if let Some(token) = Token::parse(&text) {
            return Ok(token);
        }
    }
    for _ in 0..TRIES {
        let token = Token::draw(|bytes| rand::rng().fill_bytes(bytes));
        let free = match tenant.has_token(token.id()) {
            Some(true) => false,
            Some(false) | None => tenant.session.token(token.id()).await?.is_none(),
        };
        if free {
            return Ok(token);
        }
    }
    Err(Failure::new(Class::Foreign, "no free token id was found in the tenant").into())
}
