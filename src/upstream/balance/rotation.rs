//! Smooth weighted round robin. This room owns the order of turns; it does not know why an endpoint is unusable.
//!
//! Turns go to *groups* of endpoints: with every pick each group gains its weight, the one that has most is chosen and
//! pays what all have gained. That is nginx's rule, and 5,1,1 gives a a b a c a a. Inside a group, whose members all
//! have the same weight, a cursor goes round.
//!
//! - All weights equal: one group. A pick is a step of the cursor, however many endpoints there are.
//! - Up to [`SINGLES_MAX`] endpoints: each its own group, exactly nginx's sequence.
//! - More, of up to [`GROUPS_MAX`] distinct weights: a group per weight.
//! - More than that: a group per binary digit, a member of each set digit of its weight: 5 is in the groups of 4 and 1.
//!
//! Over a cycle of as many picks as the usable weights sum up to, every endpoint is picked exactly as often as its
//! weight says. Within a cycle the count strays from the exact share by at most one for up to five endpoints, by less
//! than two beyond (the greedy rule bounds it by no constant; 1.8 is the worst found in a search of awkward weights),
//! and by about one per binary digit in the last case.
//!
//! **Unusable endpoints.** A group none of whose members is usable neither gains nor pays, so the others share as if it
//! were not there. In a group that has a usable member, the turn of an unusable one is taken and thrown away: were it
//! given to its neighbour, a group of three with one dead would still get the share of three. A pick throws away at
//! most one turn per endpoint.
//!
//! **When who is usable changes**, gains and debts are kept in terms of requests, not of weight: with weights
//! 1000,1,1 the second owes 1001 right after its turn, which is one turn of a thousand. Were the first to die then, it
//! would have to wait for five hundred turns of the third. So they are scaled to the new total, and it owes one turn.

use super::{Share, shares};

/// Endpoints that each are a group of their own. A pick goes through them all: 32 cost about as much as a cache miss.
const SINGLES_MAX: usize = 32;

/// Distinct weights that each are a group.
const GROUPS_MAX: usize = 64;

/// How far into the cycle a rotation may begin: going there is done pick by pick.
const BEGIN_MAX: u64 = 1024;

/// What the weights are multiplied up to, in sum, so that scaling gains and debts loses nothing to speak of.
const TOTAL_SCALED: u64 = 1 << 48;

/// Whose turn it is.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    groups: Box<[Group]>,
    /// Members of all groups: no pick throws away more turns.
    members: usize,
    /// Turns in a cycle when all are usable.
    cycle: u64,
    /// Sum of the weights of the groups that took part in the last turn.
    total: i64,
}

/// Endpoints of the same weight, which share their group's turns evenly.
#[derive(Debug, Clone)]
struct Group {
    /// Indices of endpoints, at least one.
    members: Box<[u32]>,
    /// The member whose turn is next.
    cursor: usize,
    /// The member that was usable when last one was looked for.
    witness: usize,
    /// Turns of the whole group in a cycle, times a scale that all groups have in common.
    weight: i64,
    /// What it has gained and not yet paid, minus what it has paid and not yet gained; of the order of one turn, which
    /// costs the total weight.
    current: i64,
    /// It had a usable member at the last turn.
    takes_part: bool,
}

impl Rotation {
    /// A rotation at the beginning of its cycle. Endpoints of weight 0 are left out.
    pub(super) fn new(weights: &[u32]) -> Self {
        let shares: Vec<Share> = shares(weights).collect();
        let mut distinct: Vec<u32> = shares.iter().map(|share| share.weight).collect();
        distinct.sort_unstable();
        distinct.dedup();

        let mut groups: Box<[Group]> = if distinct.len() > 1 && shares.len() <= SINGLES_MAX {
            shares.iter().filter_map(|share| Group::new(share.weight, std::iter::once(share))).collect()
        } else if distinct.len() <= GROUPS_MAX {
            let of_weight =
                |&weight: &u32| Group::new(weight, shares.iter().filter(move |share| share.weight == weight));
            distinct.iter().rev().filter_map(of_weight).collect()
        } else {
            let of_digit = |digit: u32| {
                let weight = 1 << digit;
                Group::new(weight, shares.iter().filter(move |share| share.weight & weight != 0))
            };
            (0..u32::BITS).rev().filter_map(of_digit).collect()
        };
        let members = groups.iter().map(|group| group.members.len()).sum();
        let cycle = groups.iter().map(|group| group.weight.unsigned_abs()).sum();
        let scale = (TOTAL_SCALED / u64::max(cycle, 1)).max(1) as i64;
        groups.iter_mut().for_each(|group| group.weight *= scale);
        let mut rotation = Self { groups, members, cycle, total: 0 };
        rotation.begin(0);
        rotation
    }

    /// Goes to the beginning of the cycle and from there as many picks as `seed` says, modulo the cycle's length and a
    /// bound.
    pub(super) fn begin(&mut self, seed: u64) {
        self.total = 0;
        for group in &mut self.groups {
            group.cursor = 0;
            group.current = 0;
            group.takes_part = true;
            self.total += group.weight;
        }
        for _ in 0..seed % self.cycle.clamp(1, BEGIN_MAX) {
            self.pick(|_| true);
        }
    }

    /// The endpoint whose turn it is, of those usable.
    #[inline]
    pub(super) fn pick(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if let [group] = &mut self.groups[..] {
            return (0..group.members.len()).map(|_| group.take_turn()).find(|&member| usable(member));
        }
        for _ in 0..self.members {
            let member = self.choose_group(&usable)?.take_turn();
            if usable(member) {
                return Some(member);
            }
        }
        None
    }

    /// One turn among the groups that have a usable member.
    #[inline]
    fn choose_group(&mut self, usable: impl Fn(usize) -> bool) -> Option<&mut Group> {
        let (mut chosen, mut total) = self.gain(|group| group.seems_usable(&usable));
        if total != self.total {
            if total == 0 {
                (_, total) = self.gain(|group| group.is_usable(&usable));
            }
            if total == 0 {
                return None;
            }
            self.rescale(total);
            (chosen, total) = self.gain(|group| group.takes_part);
        }
        let group = &mut self.groups[chosen];
        group.current -= total;
        Some(group)
    }

    /// Every group that takes part gains its weight. Which of them then has most, the first of several, and the sum of
    /// the gains; 0 when none does.
    #[inline]
    fn gain(&mut self, takes_part: impl Fn(&mut Group) -> bool) -> (usize, i64) {
        let (mut chosen, mut most, mut total) = (0, i64::MIN, 0);
        for (at, group) in self.groups.iter_mut().enumerate() {
            group.takes_part = takes_part(group);
            if group.takes_part {
                total += group.weight;
                group.current += group.weight;
                if group.current > most {
                    (chosen, most) = (at, group.current);
                }
            }
        }
        (chosen, total)
    }

    /// Takes the last gain back, for it was made as if the total were still the one before, and scales to the new one.
    #[cold]
    fn rescale(&mut self, total: i64) {
        let ratio = total as f64 / self.total as f64;
        for group in &mut self.groups {
            if group.takes_part {
                group.current -= group.weight;
            }
            group.current = (group.current as f64 * ratio) as i64;
        }
        self.total = total;
    }
}

impl Group {
    /// The group of these endpoints, each with `weight` turns; `None` when there are none.
    fn new<'a>(weight: u32, shares: impl Iterator<Item = &'a Share>) -> Option<Self> {
        let members: Box<[u32]> = shares.map(|share| share.index).collect();
        // Endpoints are indexed by u32, so both factors are below 2^32 and a cluster of 2^31 would not fit in memory.
        let weight = i64::from(weight) * members.len() as i64;
        (!members.is_empty()).then_some(Self {
            members,
            cursor: 0,
            witness: 0,
            weight,
            current: 0,
            takes_part: true,
        })
    }

    /// Whether any member is usable. All are asked only when the witness is not.
    #[inline]
    fn is_usable(&mut self, usable: impl Fn(usize) -> bool) -> bool {
        usable(self.members[self.witness] as usize)
            || self
                .members
                .iter()
                .position(|&member| usable(member as usize))
                .inspect(|&found| self.witness = found)
                .is_some()
    }

    /// The same, but a group that was found dead asks one member per turn, each in turn, until one is back: a dead group
    /// of thousands must not be gone through with every request. It takes part again after a round at most.
    #[inline]
    fn seems_usable(&mut self, usable: impl Fn(usize) -> bool) -> bool {
        if self.takes_part {
            return self.is_usable(usable);
        }
        self.witness = self.after(self.witness);
        usable(self.members[self.witness] as usize)
    }

    /// Whose turn it is; the next member's turn is next.
    #[inline]
    fn take_turn(&mut self) -> usize {
        let member = self.members[self.cursor];
        self.cursor = self.after(self.cursor);
        member as usize
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.members.len() { 0 } else { at + 1 }
    }
}
