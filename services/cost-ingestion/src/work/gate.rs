//! Who may work here at the same time: no tenant takes all workers of an instance.
//!
//! Of a connection one period is in hand at a time, so connections take turns in the stream. A tenant with very many of them is bound here: whatever is
//! running, a place is left for the next tenant that comes. What finds no place goes back into the stream.

use contracts::TenantId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Places, by tenant.
#[derive(Debug)]
pub struct Gate {
    most: usize,
    taken: Mutex<HashMap<TenantId, usize>>,
}

/// A place that is given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    tenant: TenantId,
}

impl Gate {
    /// For an instance with so many workers: one tenant gets half of them, and never the last one, if there are two.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let most = workers.div_ceil(2).min(workers.saturating_sub(1)).max(1);
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for this tenant, if it has one left.
    #[must_use]
    pub fn enter(self: &Arc<Self>, tenant: TenantId) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let places = taken.entry(tenant).or_default();
        if *places >= self.most {
            return None;
        }
        *places += 1;
        Some(Place { gate: Arc::clone(self), tenant })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.gate.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = taken.get_mut(&self.tenant) {
            *places -= 1;
            if *places == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_left_for_others_wherever_there_are_two() {
        for (workers, most) in [(1, 1), (2, 1), (3, 2), (4, 2), (8, 4), (64, 32)] {
            let (gate, tenant) = (Gate::new(workers), TenantId::new());
            let places: Vec<_> = (0..workers + 1).filter_map(|_| gate.enter(tenant)).collect();
            assert_eq!(places.len(), most, "{workers}");
            assert!(gate.enter(TenantId::new()).is_some());
            drop(places);
            assert!(gate.enter(tenant).is_some() && gate.taken.lock().unwrap().is_empty());
        }
    }
}
