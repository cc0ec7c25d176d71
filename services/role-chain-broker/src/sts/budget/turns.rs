//! Whose turn it is. Pure.
//!
//! Tenants take turns; within one tenant, whoever came first goes first. So a tenant that asks for ten thousand sessions at once delays each other
//! tenant by one call at a time.

use std::collections::{HashMap, VecDeque};

use contracts::TenantId;

/// Those who wait.
#[derive(Debug)]
pub(super) struct Turns<W> {
    lines: HashMap<TenantId, VecDeque<W>>,
    /// Tenants whose line is not empty, in the order of their turns.
    order: VecDeque<TenantId>,
    len: usize,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { lines: HashMap::new(), order: VecDeque::new(), len: 0 }
    }
}

impl<W> Turns<W> {
    pub(super) fn join(&mut self, tenant: TenantId, waiting: W) {
        let line = self.lines.entry(tenant).or_default();
        if line.is_empty() {
            self.order.push_back(tenant);
        }
        line.push_back(waiting);
        self.len += 1;
    }

    /// Takes the next one out.
    pub(super) fn next(&mut self) -> Option<W> {
        let tenant = self.order.pop_front()?;
        let line = self.lines.get_mut(&tenant)?;
        let next = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        self.len -= 1;
        Some(next)
    }

    /// Takes those of `tenant` out that are not to be kept.
    pub(super) fn leave(&mut self, tenant: TenantId, keep: impl FnMut(&W) -> bool) {
        let Some(line) = self.lines.get_mut(&tenant) else { return };
        let before = line.len();
        line.retain(keep);
        self.len -= before - line.len();
        if line.is_empty() {
            self.lines.remove(&tenant);
            self.order.retain(|other| *other != tenant);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many would be called before one of `tenant` who came now.
    pub(super) fn ahead_of(&self, tenant: TenantId) -> usize {
        let own = self.lines.get(&tenant).map_or(0, VecDeque::len);
        // Until then each other tenant has one turn more than our own line is long, or as many as it has waiting.
        let others = self.lines.iter().filter(|(other, _)| **other != tenant);
        own + others.map(|(_, line)| line.len().min(own + 1)).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_giant_delays_the_others_by_one_call_each() {
        let (giant, small) = (TenantId::new(), TenantId::new());
        let mut turns = Turns::default();
        (0..1000).for_each(|n| turns.join(giant, (giant, n)));
        turns.join(small, (small, 0));
        assert_eq!((turns.ahead_of(small), turns.ahead_of(giant)), (3, 1001));
        assert_eq!(turns.next(), Some((giant, 0)));
        assert_eq!(turns.next(), Some((small, 0)));
        assert_eq!(turns.next(), Some((giant, 1)));
        assert_eq!(turns.len(), 998);
    }

    proptest! {
        #[test]
        fn all_are_called_once_and_the_estimate_is_right(lines in prop::collection::vec(0_usize..20, 1..8), own in 0_usize..8) {
            let tenants: Vec<_> = lines.iter().map(|_| TenantId::new()).collect();
            let mut turns = Turns::default();
            for (tenant, length) in tenants.iter().zip(&lines) {
                (0..*length).for_each(|n| turns.join(*tenant, (*tenant, n)));
            }
            let mine = tenants[own % tenants.len()];
            let estimate = turns.ahead_of(mine);
            turns.join(mine, (mine, usize::MAX));
            let called: Vec<_> = std::iter::from_fn(|| turns.next()).collect();
            prop_assert_eq!(called.len(), lines.iter().sum::<usize>() + 1);
            prop_assert_eq!(turns.len(), 0);
            let before = called.iter().position(|(_, n)| *n == usize::MAX).unwrap();
            // Whoever is already in the order has its turn before or after: one turn of each other tenant more or less.
            prop_assert!(before <= estimate && estimate - before < tenants.len());
            for tenant in tenants {
                let of_tenant: Vec<_> = called.iter().filter(|(t, _)| *t == tenant).map(|(_, n)| *n).collect();
                prop_assert!(of_tenant.is_sorted());
            }
        }
    }
}
