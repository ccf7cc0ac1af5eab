//! Where to look for the other nodes: listed addresses, and names that are resolved again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use presence::NodeName;
use tracing::{debug, info, warn};
use transport::Transport;

use crate::config::Seed;

/// Gap between two look-ups of a name.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Longest wait for a look-up.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses that the configuration leads to, and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Seeds(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Each address, with the seed it came from.
    addresses: BTreeMap<SocketAddr, String>,
    own: BTreeSet<SocketAddr>,
    /// Addresses of members.
    members: BTreeSet<SocketAddr>,
    /// Names that have not been resolved once.
    unresolved: BTreeSet<String>,
}

impl Seeds {
    /// What the configuration names; nothing is resolved yet.
    pub(crate) fn new(seeds: &[Seed]) -> Self {
        let mut known = Known::default();
        for seed in seeds {
            match seed {
                Seed::Address(address) => {
                    known.addresses.insert(*address, address.to_string());
                }
                Seed::Host { .. } | Seed::Dns { .. } => {
                    known.unresolved.insert(seed.to_string());
                }
            }
        }
        Self(Mutex::new(known))
    }

    /// A member is there, or no longer is. `settle` is told whether a link to the address is wanted,
    /// before anybody else can change that.
    pub(crate) fn set_member(&self, address: SocketAddr, member: bool, settle: impl FnOnce(bool)) {
        let mut known = self.known();
        let _ = if member { known.members.insert(address) } else { known.members.remove(&address) };
        settle(known.wants(address));
    }

    /// The name of a seed leads there, or no longer does; `settle` as above.
    fn set_address(&self, address: SocketAddr, seed: Option<&Seed>, settle: impl FnOnce(bool)) {
        let mut known = self.known();
        match seed {
            Some(seed) => drop(known.addresses.insert(address, seed.to_string())),
            None => drop(known.addresses.remove(&address)),
        }
        settle(known.wants(address));
    }

    /// An address as the operator knows it.
    pub(crate) fn describe(&self, address: SocketAddr) -> String {
        match self.known().addresses.get(&address) {
            Some(seed) if *seed == address.to_string() => format!("seed {seed}"),
            Some(seed) => format!("seed {seed} ({address})"),
            None => format!("peer {address}"),
        }
    }

    /// This address has turned out to be this node's own.
    pub(crate) fn is_self(&self, address: SocketAddr) {
        self.known().own.insert(address);
    }

    /// There is nobody else to join: no seed, or all of them are this node.
    pub(crate) fn only_self(&self) -> bool {
        let known = self.known();
        known.unresolved.is_empty() && known.addresses.keys().all(|a| known.own.contains(a))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn wants(&self, address: SocketAddr) -> bool {
        self.addresses.contains_key(&address) || self.members.contains(&address)
    }
}

/// Keeps links to all that the seeds lead to, for as long as the node lives.
pub(crate) async fn run(node: NodeName, seeds: Vec<Seed>, known: Arc<Seeds>, transport: Transport) {
    let mut names = Vec::new();
    for seed in seeds {
        match seed {
            Seed::Address(address) => transport.keep(address),
            Seed::Host { .. } | Seed::Dns { .. } => names.push((seed, BTreeSet::new())),
        }
    }
    loop {
        for (seed, addresses) in &mut names {
            let found = resolve(&node, seed).await;
            if found.is_empty() {
                continue;
            }
            update(&node, seed, addresses, found, &known, &transport);
        }
        tokio::time::sleep(RESOLVE_INTERVAL).await;
    }
}

/// Replaces the addresses of one name. Nodes that are members stay linked whatever their name says.
fn update(
    node: &NodeName,
    seed: &Seed,
    addresses: &mut BTreeSet<SocketAddr>,
    found: BTreeSet<SocketAddr>,
    known: &Seeds,
    transport: &Transport,
) {
    for address in found.difference(addresses) {
        info!(%node, %seed, %address, "seed resolved");
        known.set_address(*address, Some(seed), |wanted| keep(transport, *address, wanted));
    }
    for address in addresses.difference(&found) {
        debug!(%node, %seed, %address, "seed no longer resolves to it");
        known.set_address(*address, None, |wanted| keep(transport, *address, wanted));
    }
    known.known().unresolved.remove(&seed.to_string());
    *addresses = found;
}

/// Keeps a link to the address, or no longer.
pub(crate) fn keep(transport: &Transport, address: SocketAddr, wanted: bool) {
    if wanted {
        transport.keep(address);
    } else {
        transport.forget(address);
    }
}

async fn resolve(node: &NodeName, seed: &Seed) -> BTreeSet<SocketAddr> {
    let (host, port) = match seed {
        Seed::Address(address) => return BTreeSet::from([*address]),
        Seed::Host { host, port } | Seed::Dns { host, port } => (host.clone(), *port),
    };
    let lookup = tokio::net::lookup_host((host, port));
    match tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            warn!(%node, %seed, "cannot resolve seed {seed}: {error}; trying again every 5 s");
            BTreeSet::new()
        }
        Err(_) => {
            warn!(%node, %seed, "cannot resolve seed {seed}: no answer in 5 s; trying again");
            BTreeSet::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_whose_seeds_are_itself_has_nobody_to_wait_for() {
        let own: SocketAddr = ([127, 0, 0, 1], 4400).into();
        let seeds = Seeds::new(&[Seed::Address(own)]);
        assert!(!seeds.only_self(), "not yet dialled");
        seeds.is_self(own);
        assert!(seeds.only_self());
        assert!(Seeds::new(&[]).only_self());
    }

    #[test]
    fn a_name_that_does_not_resolve_is_waited_for() {
        let seeds = Seeds::new(&[Seed::Dns { host: "nodes.example".to_owned(), port: 4400 }]);
        assert!(!seeds.only_self());
    }

    #[test]
    fn a_member_stays_wanted_when_its_name_leads_elsewhere() {
        let address: SocketAddr = ([10, 0, 0, 1], 4400).into();
        let name = Seed::Dns { host: "nodes.example".to_owned(), port: 4400 };
        let seeds = Seeds::new(std::slice::from_ref(&name));
        seeds.set_address(address, Some(&name), |wanted| assert!(wanted));
        seeds.set_member(address, true, |wanted| assert!(wanted));
        seeds.set_address(address, None, |wanted| assert!(wanted, "it is a member"));
        seeds.set_member(address, false, |wanted| assert!(!wanted));
    }

    #[test]
    fn an_address_is_named_as_the_operator_wrote_it() {
        let address: SocketAddr = ([10, 0, 0, 1], 4400).into();
        let seeds = Seeds::new(&[Seed::Address(address)]);
        assert_eq!(seeds.describe(address), "seed 10.0.0.1:4400");
        let other = ([10, 0, 0, 2], 4400).into();
        assert_eq!(seeds.describe(other), "peer 10.0.0.2:4400");
    }
}
