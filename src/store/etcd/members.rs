//! The members of a cluster, in the order in which they are asked.

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Limit of requests in flight at one member; each change has a connection of its own.
const IN_FLIGHT: usize = 64;

/// A member by its place in the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member(usize);

pub(super) struct Members {
    urls: Vec<String>,
    in_flight: Vec<Semaphore>,
    /// The one that answered last comes first, those that failed come last.
    order: Mutex<Vec<Member>>,
}

impl Members {
    pub(super) fn new(scheme: &str, addresses: &[String]) -> Self {
        let urls: Vec<String> = addresses.iter().map(|address| format!("{scheme}://{address}")).collect();
        let order = Mutex::new((0..urls.len()).map(Member).collect());
        let in_flight = urls.iter().map(|_| Semaphore::new(IN_FLIGHT)).collect();
        Self { urls, in_flight, order }
    }

    pub(super) fn url(&self, member: Member) -> &str {
        &self.urls[member.0]
    }

    /// The permit that a request holds while it is in flight.
    pub(super) async fn permit(&self, member: Member) -> Option<SemaphorePermit<'_>> {
        self.in_flight[member.0].acquire().await.ok()
    }

    pub(super) fn in_order(&self) -> Vec<Member> {
        self.order.lock().clone()
    }

    pub(super) fn first(&self) -> Member {
        self.order.lock()[0]
    }

    pub(super) fn answered(&self, member: Member) {
        let mut order = self.order.lock();
        if order[0] != member {
            order.retain(|other| *other != member);
            order.insert(0, member);
        }
    }

    pub(super) fn failed(&self, member: Member) {
        let mut order = self.order.lock();
        order.retain(|other| *other != member);
        order.push(member);
    }
}
