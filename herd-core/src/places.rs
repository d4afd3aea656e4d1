//! Places that clients share: so many in all, and so many for each client, so that none takes them from the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The client that `ip` counts as: an IPv4 address, or the network of an IPv6 one, which gives a single machine more
/// addresses than anybody can count.
#[must_use]
pub fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All are taken.
    #[error("all {0} places are taken")]
    All(usize),
    /// The client has its share.
    #[error("this client has its share of {0} places already")]
    Share(usize),
}

/// Places, some taken: by clients, or by whatever else `K` names. Cloning it shares them.
#[derive(Debug, Clone)]
pub struct Places<K: Ord = IpAddr>(Arc<Hall<K>>);

#[derive(Debug)]
struct Hall<K> {
    places: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    /// Clients that have any.
    by_client: BTreeMap<K, usize>,
}

impl Places {
    /// A place for the client at `ip`, who may have `share` of them.
    ///
    /// # Errors
    /// When all are taken, or the client has its share.
    pub fn take(&self, ip: IpAddr, share: usize) -> Result<Place, Full> {
        self.take_for(client_of(ip), share)
    }
}

impl<K: Ord + Clone> Places<K> {
    /// `places` of them.
    #[must_use]
    pub fn new(places: usize) -> Self {
        let taken = Mutex::new(Taken { all: 0, by_client: BTreeMap::new() });
        Self(Arc::new(Hall { places, taken }))
    }

    /// A place for `client`, who may have `share` of them.
    ///
    /// # Errors
    /// When all are taken, or the client has its share.
    pub fn take_for(&self, client: K, share: usize) -> Result<Place<K>, Full> {
        let mut taken = self.taken();
        let of_client = taken.by_client.get(&client).copied().unwrap_or(0);
        if of_client >= share {
            return Err(Full::Share(share));
        }
        if taken.all >= self.0.places {
            return Err(Full::All(self.0.places));
        }
        taken.all += 1;
        taken.by_client.insert(client.clone(), of_client + 1);
        Ok(Place { places: Self(Arc::clone(&self.0)), client })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.places
    }

    /// How many are taken.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.taken().all
    }
}

impl<K: Ord> Places<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        // Counts are whole whoever panicked.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is taken, until this is dropped.
#[derive(Debug)]
#[must_use = "the place is free again as soon as this is dropped"]
pub struct Place<K: Ord = IpAddr> {
    places: Places<K>,
    client: K,
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        let Some(of_client) = taken.by_client.get_mut(&self.client) else { return };
        *of_client -= 1;
        if *of_client == 0 {
            taken.by_client.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(one: &str, other: &str, same: bool) {
        assert_eq!(client_of(ip(one)) == client_of(ip(other)), same, "{one} {other}");
    }

    #[test]
    fn a_machine_is_one_client_by_all_its_addresses() {
        check("10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
        check("10.0.0.1", "::ffff:10.0.0.1", true);
        check("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true);
        check("2001:db8:0:1::1", "2001:db8:0:2::1", false);
        check("::1", "::2", false);
        check("::1", "127.0.0.1", false);
    }

    #[test]
    fn none_takes_more_than_its_share_and_what_is_left_is_there_again() {
        let places = Places::new(4);
        let (greedy, modest) = (ip("10.0.0.1"), ip("10.0.0.2"));
        let mut held = vec![places.take(greedy, 3).unwrap(), places.take(greedy, 3).unwrap()];
        held.push(places.take(greedy, 3).unwrap());
        assert_eq!(places.take(greedy, 3).unwrap_err(), Full::Share(3));
        let other = places.take(modest, 3).unwrap();
        assert_eq!(places.take(modest, 3).unwrap_err(), Full::All(4));
        held.pop();
        assert_eq!(places.taken_count(), 3);
        held.push(places.take(modest, 3).unwrap());
        drop((held, other));
        assert_eq!((places.taken_count(), places.taken().by_client.len()), (0, 0));
    }
}
