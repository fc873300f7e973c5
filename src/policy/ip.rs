//! Who may ask, by address.

use std::net::IpAddr;

use ipnet::IpNet;

/// Which addresses may ask.
#[derive(Debug, Clone)]
pub struct IpAccess {
    /// `None`: all.
    allow: Option<Networks>,
    deny: Networks,
}

impl IpAccess {
    /// Those in `allow`, or everyone where that is empty, but for those in `deny`.
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        Self { allow: (!allow.is_empty()).then(|| Networks::new(allow)), deny: Networks::new(deny) }
    }

    /// Whether an address may ask.
    pub fn admits(&self, ip: IpAddr) -> bool {
        !self.deny.contains(ip) && self.allow.as_ref().is_none_or(|allow| allow.contains(ip))
    }
}

/// Networks, as ranges of addresses that neither overlap nor touch, in order: a look-up is a binary search, however many there are.
#[derive(Debug, Clone)]
struct Networks {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    fn new(networks: &[IpNet]) -> Self {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    /// An IPv4 address that is mapped into IPv6 is the IPv4 address.
    fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => holds(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => holds(&self.v6, ip.to_bits()),
        }
    }
}

fn merged<A: Copy + Ord>(mut ranges: Vec<(A, A)>) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, before| {
        let overlaps = next.0 <= before.1;
        if overlaps {
            before.1 = before.1.max(next.1);
        }
        overlaps
    });
    ranges.into()
}

fn holds<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let place = ranges.partition_point(|(first, _)| *first <= address);
    place > 0 && address <= ranges[place - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn allowed_and_denied() {
        let office = IpAccess::new(&networks(&["10.0.0.0/8", "2001:db8::/32"]), &networks(&["10.1.0.0/16"]));
        for (ip, admits) in [
            ("10.0.0.0", true),
            ("10.0.255.255", true),
            ("10.1.0.0", false),
            ("10.1.255.255", false),
            ("10.2.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("::ffff:10.0.0.1", true),
            ("::ffff:10.1.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(office.admits(ip.parse().unwrap()), admits, "{ip}");
        }
        let others = IpAccess::new(&[], &networks(&["192.0.2.7/32"]));
        assert!(others.admits("192.0.2.8".parse().unwrap()) && others.admits("::".parse().unwrap()));
        assert!(!others.admits("192.0.2.7".parse().unwrap()));
        assert!(
            !IpAccess::new(&networks(&["0.0.0.0/0"]), &[]).admits("::1".parse().unwrap()),
            "that is another family"
        );
    }

    proptest! {
        /// It is what asking one network after the other comes to.
        #[test]
        fn ranges_are_their_networks(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..40),
            near in any::<proptest::sample::Index>(),
            by in -2i64..=2,
            anywhere in any::<u32>(),
        ) {
            let nets: Vec<IpNet> = nets
                .iter()
                .map(|(bits, prefix)| IpNet::new(std::net::Ipv4Addr::from_bits(*bits).into(), *prefix).unwrap().trunc())
                .collect();
            let all = Networks::new(&nets);
            let mut asked = vec![anywhere];
            if !nets.is_empty()
                && let IpNet::V4(net) = nets[near.index(nets.len())]
            {
                asked.extend([net.network(), net.broadcast()].map(|edge| (i64::from(edge.to_bits()) + by) as u32));
            }
            for ip in asked {
                let ip: IpAddr = std::net::Ipv4Addr::from_bits(ip).into();
                prop_assert_eq!(all.contains(ip), nets.iter().any(|net| net.contains(&ip)), "{}", ip);
            }
            prop_assert!(all.v4.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
