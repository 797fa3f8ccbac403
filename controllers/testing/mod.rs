//! An API server in memory for the convergence tests: a tower service behind a real client.
//!
//! It has what the controllers rely on: resource versions, generations, UIDs, finalizers, server-side apply that
//! removes fields a manager no longer applies, the status subresource, UID preconditions, and garbage collection.
//! It has no schemas, defaults or admission: those are tested against a real API server.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

mod change;
pub mod goldens;
pub mod path;

pub use change::Change;

/// Finalizer of foreground deletion: the object is deleted after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";

/// The server. Clones share the objects.
#[derive(Clone, Default)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    /// Requests of this clone are never answered.
    silent: Arc<AtomicBool>,
}

#[derive(Default)]
struct State {
    /// By path, without subresource.
    objects: BTreeMap<String, Value>,
    /// The last apply of each field manager, by path and manager.
    applied: BTreeMap<(String, String), Value>,
    revision: u64,
    changes: Vec<Change>,
    /// `METHOD path` of reads and writes.
    requests: Vec<String>,
    /// Objects below this path cannot be written, as if a policy denied it.
    denied: Option<String>,
    /// Writes that still succeed; after them every request fails, as if the process had died.
    lives: Option<usize>,
    /// Requests whose path ends like this get 429.
    refused: Option<String>,
    /// Requests whose path starts like this get 403, as if an RBAC rule were missing.
    forbidden: Option<String>,
    /// What a webhook merges into each object that is written below this path; `null` drops a field.
    amended: Option<(String, Value)>,
    /// What happens to the object at this path just before its next write: a merge, or its deletion.
    overtaken: Option<(String, Option<Value>)>,
    /// How long an answer takes.
    delay: Duration,
}

impl FakeApi {
    /// A client of this server.
    pub fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Answers `writes` more writes, and fails every request after them. `None` ends that.
    pub fn die_after(&self, writes: Option<usize>) {
        self.state.lock().lives = writes;
    }

    /// Denies writes to objects whose path starts with `path`, as a webhook does that gives no code: with 400. `None` ends
    /// that.
    pub fn deny(&self, path: Option<&str>) {
        self.state.lock().denied = path.map(str::to_owned);
    }

    /// Answers requests whose path ends like this with 429 from now on.
    pub fn refuse(&self, end: Option<&str>) {
        self.state.lock().refused = end.map(ToOwned::to_owned);
    }

    /// Answers requests whose path starts like this with 403 from now on, as where an RBAC rule is missing.
    pub fn forbid(&self, path: Option<&str>) {
        self.state.lock().forbidden = path.map(str::to_owned);
    }

    /// Merges `change` into each object that is written below `path`, as a webhook does, or a schema that drops fields.
    pub fn amend(&self, path: Option<&str>, change: Value) {
        self.state.lock().amended = path.map(|path| (path.to_owned(), change));
    }

    /// Merges `change` into the object at `path` just before its next write, as another client does; `None` deletes it.
    pub fn overtake(&self, path: &str, change: Option<Value>) {
        self.state.lock().overtaken = Some((path.to_owned(), change));
    }

    /// Another connection to the same objects; [`FakeApi::fall_silent`] concerns only one of the two.
    pub fn another_way(&self) -> Self {
        Self {
            state: self.state.clone(),
            silent: Arc::default(),
        }
    }

    /// Leaves all requests of this connection unanswered from now on.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    /// Lets each answer take this long, as with a slow webhook.
    pub fn slow_down(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().requests)
    }

    /// Changes since the last call, in order.
    pub fn changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.state.lock().changes)
    }

    /// All objects, as in a list.
    pub fn objects(&self) -> Vec<Value> {
        self.state.lock().objects.values().cloned().collect()
    }

    /// One object.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().objects.get(path).cloned()
    }

    /// Creates or changes an object as another client: merges `merge` into it, status included.
    pub fn edit(&self, path: &str, merge: &Value) {
        let mut state = self.state.lock();
        let mut object = state.objects.get(path).cloned().unwrap_or_else(|| json!({}));
        overlay(&mut object, merge, true);
        state.store(path, object);
    }

    /// Deletes an object as another client.
    pub fn delete(&self, path: &str) {
        self.state.lock().delete(path);
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if self.silent.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        let (parts, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let delay = self.state.lock().delay;
        tokio::time::sleep(delay).await;
        let (code, answer) = self.state.lock().answer(&parts.method, &parts.uri, &body);
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = code;
        response
    }
}

impl State {
    fn answer(&mut self, method: &Method, uri: &http::Uri, body: &Value) -> (StatusCode, Value) {
        self.requests.push(format!("{method} {}", uri.path()));
        if self.lives == Some(0) {
            return failure(500, "InternalError", "the process is dead");
        }
        if self
            .refused
            .as_deref()
            .is_some_and(|end| uri.path().ends_with(end))
        {
            return failure(429, "TooManyRequests", "try again later");
        }
        let is_forbidden = |path: &String| uri.path().starts_with(path.as_str());
        if self.forbidden.as_ref().is_some_and(is_forbidden) {
            let verb = if method == Method::GET { "get" } else { "patch" };
            let kinds = uri.path().rsplit('/').nth(1).unwrap_or_default();
            let words =
                format!("is forbidden: User \"u\" cannot {verb} resource \"{kinds}\" in API group \"g\"");
            return failure(403, "Forbidden", &words);
        }
        let writes = method != Method::GET && !uri.path().contains("/events");
        if let Some(lives) = self.lives.as_mut().filter(|_| writes) {
            *lives -= 1;
        }
        let denied = self
            .denied
            .as_deref()
            .is_some_and(|path| uri.path().starts_with(path));
        if writes && denied {
            return failure(
                400,
                "BadRequest",
                "admission webhook \"policy.example\" denied the request: not today",
            );
        }
        let status = uri.path().ends_with("/status");
        let path = uri.path().trim_end_matches("/status").to_owned();
        let query = uri.query().unwrap_or_default();
        if path.contains("/events") || path.ends_with("/subjectaccessreviews") {
            return (StatusCode::CREATED, body.clone());
        }
        match *method {
            Method::GET => match self.objects.get(&path) {
                Some(object) => (StatusCode::OK, object.clone()),
                None if is_list(&path) => (StatusCode::OK, self.list(&path)),
                None => not_found(),
            },
            Method::PUT => self.put(path.trim_end_matches("/approval"), body),
            Method::POST => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap_or_default());
                if self.objects.contains_key(&path) {
                    return failure(409, "AlreadyExists", "the object exists");
                }
                self.applied.insert((path.clone(), manager(query)), body.clone());
                (StatusCode::CREATED, self.store(&path, body.clone()))
            }
            Method::PATCH => self.patch(&path, status, query, body),
            Method::DELETE => {
                let Some(object) = self.objects.get(&path) else {
                    return not_found();
                };
                let uid = &body["preconditions"]["uid"];
                if !uid.is_null() && *uid != object["metadata"]["uid"] {
                    return failure(409, "Conflict", "another object has that name");
                }
                if body["propagationPolicy"] == "Foreground" {
                    // It exists until the test, in the place of the garbage collector, removes this finalizer.
                    let mut object = object.clone();
                    object["metadata"]["finalizers"] = json!([FOREGROUND]);
                    self.store(&path, object);
                }
                match self.delete(&path) {
                    Some(object) => (StatusCode::OK, object),
                    None => (
                        StatusCode::OK,
                        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200}),
                    ),
                }
            }
            _ => failure(405, "MethodNotAllowed", "not implemented"),
        }
    }

    /// The objects directly below `path`.
    fn list(&self, path: &str) -> Value {
        let below = |known: &&String| known.rsplit_once('/').is_some_and(|(parent, _)| parent == path);
        let items: Vec<_> = self.objects.iter().filter(|(known, _)| below(known)).collect();
        let items: Vec<_> = items.into_iter().map(|(_, object)| object).collect();
        json!({"metadata": {"resourceVersion": self.revision.to_string()}, "items": items})
    }

    /// Replaces an object, if nobody wrote it since it was read.
    fn put(&mut self, path: &str, body: &Value) -> (StatusCode, Value) {
        match self.objects.get(path) {
            None => not_found(),
            Some(known) if known["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                failure(409, "Conflict", "the object was modified")
            }
            Some(_) => (StatusCode::OK, self.store(path, body.clone())),
        }
    }

    fn patch(&mut self, path: &str, status: bool, query: &str, body: &Value) -> (StatusCode, Value) {
        if let Some((_, change)) = self.overtaken.take_if(|(overtaken, _)| overtaken == path) {
            match change {
                Some(change) => {
                    let mut object = self.objects.get(path).cloned().unwrap_or_else(|| json!({}));
                    overlay(&mut object, &change, true);
                    self.store(path, object);
                }
                None => self.remove(path),
            }
        }
        let known = self.objects.get(path).cloned();
        let apply = query.contains("fieldManager=") && query.contains("force=true");
        let metadata = &body["metadata"];
        match &known {
            None if status || !apply || !metadata["uid"].is_null() => return not_found(),
            Some(known) => {
                for key in ["uid", "resourceVersion"] {
                    if !metadata[key].is_null() && metadata[key] != known["metadata"][key] {
                        return failure(409, "Conflict", "the object was modified");
                    }
                }
            }
            None => {}
        }
        let mut object = known.unwrap_or_else(|| json!({}));
        if status {
            object["status"] = body["status"].clone();
        } else if apply {
            let before = self
                .applied
                .insert((path.to_owned(), manager(query)), body.clone());
            if let Some(before) = before {
                remove_dropped(&mut object, &before, body);
            }
            overlay(&mut object, body, false);
        } else {
            overlay(&mut object, body, true);
        }
        if let Some((_, change)) = self
            .amended
            .as_ref()
            .filter(|(below, _)| path.starts_with(below.as_str()))
        {
            overlay(&mut object, change, true);
        }
        (StatusCode::OK, self.store(path, object))
    }

    /// Stores an object when it differs, and records the change.
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        let known = self.objects.get(path);
        if known == Some(&object) {
            return object;
        }
        let generation = known.map_or(1, |known| {
            let old = known["metadata"]["generation"].as_u64().unwrap_or(1);
            // The start of a deletion changes the generation too.
            let is_deleted = |object: &Value| !object["metadata"]["deletionTimestamp"].is_null();
            old + u64::from(known["spec"] != object["spec"] || is_deleted(known) != is_deleted(&object))
        });
        self.revision += 1;
        // An object without a spec, such as a Secret, has no generation.
        let has_generation = object.get("spec").is_some();
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata
            .entry("uid")
            .or_insert_with(|| json!(format!("uid-{}", self.revision)));
        metadata
            .entry("creationTimestamp")
            .or_insert_with(|| json!("2026-03-01T11:00:00Z"));
        if has_generation {
            metadata.insert("generation".into(), json!(generation));
        }
        metadata.insert("resourceVersion".into(), json!(self.revision.to_string()));
        self.objects.insert(path.to_owned(), object.clone());
        self.changes.push(Change {
            object: object.clone(),
            gone: false,
        });
        if !object["metadata"]["deletionTimestamp"].is_null() && no_finalizers(&object) {
            self.remove(path);
        }
        object
    }

    /// Starts a deletion. Returns the object while it has finalizers.
    fn delete(&mut self, path: &str) -> Option<Value> {
        let mut object = self.objects.get(path)?.clone();
        if no_finalizers(&object) {
            self.remove(path);
            return None;
        }
        object["metadata"]["deletionTimestamp"] = json!("2026-03-01T12:00:00Z");
        Some(self.store(path, object))
    }

    /// Removes an object and its dependents.
    fn remove(&mut self, path: &str) {
        let Some(mut object) = self.objects.remove(path) else {
            return;
        };
        self.applied.retain(|(known, _), _| known != path);
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let uid = object["metadata"]["uid"].clone();
        self.changes.push(Change { object, gone: true });
        let owned: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, object)| {
                let owners = object["metadata"]["ownerReferences"].as_array();
                owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in owned {
            self.delete(&path);
        }
    }
}

/// `/api/v1/secrets` and `/api/v1/namespaces/ns/secrets` are lists; with one segment more they are objects. Paths with a
/// group have one segment more.
fn is_list(path: &str) -> bool {
    let group = usize::from(path.starts_with("/apis/"));
    (path.split('/').count() - group).is_multiple_of(2)
}

fn manager(query: &str) -> String {
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix("fieldManager="))
        .unwrap_or_default()
        .to_owned()
}

fn no_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_none_or(Vec::is_empty)
}

/// Merges `over` into `under`. Lists are replaced. With `merge`, `null` removes a field.
fn overlay(under: &mut Value, over: &Value, merge: bool) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() && merge {
                    under.remove(key);
                } else {
                    overlay(under.entry(key).or_insert(Value::Null), value, merge);
                }
            }
        }
        (under, over) => {
            *under = match over {
                Value::Object(over) => {
                    let mut made = Value::Object(Map::new());
                    overlay(&mut made, &Value::Object(over.clone()), merge);
                    made
                }
                other => other.clone(),
            }
        }
    }
}

/// Removes from `object` the fields that `before` has and `now` lacks.
fn remove_dropped(object: &mut Value, before: &Value, now: &Value) {
    let (Some(object), Some(before)) = (object.as_object_mut(), before.as_object()) else {
        return;
    };
    for (key, old) in before {
        match now.get(key) {
            None => {
                object.remove(key);
            }
            Some(now) => {
                if let Some(inner) = object.get_mut(key) {
                    remove_dropped(inner, old, now);
                }
            }
        }
    }
}

fn not_found() -> (StatusCode, Value) {
    failure(404, "NotFound", "not found")
}

fn failure(code: u16, reason: &str, message: &str) -> (StatusCode, Value) {
    (
        StatusCode::from_u16(code).unwrap(),
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code,
        }),
    )
}
