//! What is not seen of a workload cluster for the size of an object there. Nothing but a change of that object ends it, so
//! the configs that may wait for it say so.

use kamaji_api::conditions::Reason;
use kube::runtime::watcher::{self, Event};

use super::{Tenant, View, requests::MOST_BYTES};
use crate::{
    k8s::{key::RootKey, problem::Problem},
    tenant,
};

impl View {
    /// The request of this name is deleted or decided. Returns the config that reported that it was too large.
    pub(super) fn without(&mut self, request: &str) -> Option<RootKey> {
        self.requests.remove(request);
        let mut unread = self.unread_requests.iter();
        let (token, _) = unread.find(|(_, name)| *name == request)?;
        let token = token.clone();
        self.unread_requests.remove(&token);
        self.ids.get(&token).map(|waiter| waiter.key.clone())
    }
}

impl Tenant {
    /// What a config with this token may wait for in vain, since its size keeps it from being read.
    pub fn unread(&self, token: Option<&str>) -> Option<Problem> {
        let view = self.view.lock();
        let message = if let Some(what) = view.unread.first() {
            let action = format!("watch {what} of the workload cluster");
            tenant::Error::TooLarge { action }.to_string()
        } else if token.is_some_and(|token| view.unread_requests.contains_key(token)) {
            format!(
                "a certificate request with the token has more than {} KiB and is not looked at: delete it in the workload \
                 cluster, and find out what makes it so large",
                MOST_BYTES / 1024
            )
        } else {
            return None;
        };
        Some(Problem::on_change(Reason::ObjectTooLarge, message))
    }

    /// A watch failed. Where that is for the size of an object, nothing but a change of that object ends it.
    pub(in crate::kamajiconfig) fn note_error(&self, what: &'static str, error: &watcher::Error) {
        if tenant::is_too_large(error) && self.view.lock().unread.insert(what) {
            self.wake_all();
        }
    }

    /// A watch works, unless the event is one of a list that has not ended.
    pub(in crate::kamajiconfig) fn note_event<T>(&self, what: &'static str, event: &Event<T>) {
        let lists = matches!(event, Event::Init | Event::InitApply(_));
        if !lists && self.view.lock().unread.remove(what) {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let waiting = self.waiting.lock().clone();
        for key in waiting {
            self.wake(Some(key));
        }
    }
}
