//! One weight becomes two: whole numbers that keep every share of a rule exactly.

/// The weight of one backend of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It is divided between stable and candidate.
    Stable(u64),
    /// It keeps its share.
    Other(u64),
}

impl Part {
    fn weight(self) -> u64 {
        match self {
            Part::Stable(weight) | Part::Other(weight) => weight,
        }
    }
}

/// What a backend has after the division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The weight of the backend itself.
    pub own: u64,
    /// The weight of its candidate; `None` where none is added: for others, and for a stable Service without weight.
    pub candidate: Option<u64>,
}

/// No whole numbers below the limit keep all shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Divides the weight of each stable part, `percent` (0 to 100) of it for the candidate. All weights of the rule grow by one
/// common factor, the smallest that makes them whole. Where the stable Service has all of the rule's traffic, the weights
/// are percents, since that is what people read. A candidate without a share has weight 0. `None` when there is nothing to divide.
pub(super) fn divide(parts: &[Part], percent: u32, limit: u64) -> Result<Option<Vec<Share>>, TooLarge> {
    let percent = u64::from(percent.min(100));
    let stable = |part: &&Part| matches!(part, Part::Stable(weight) if *weight > 0);
    if !parts.iter().any(|part| stable(&part)) {
        return Ok(None);
    }
    let sole = parts.iter().filter(|part| part.weight() > 0).count() == 1;
    let factor = if sole {
        100
    } else {
        100 / parts.iter().filter(stable).fold(100, |known, part| gcd(known, percent * part.weight()))
    };
    let shares: Vec<Share> = parts
        .iter()
        .map(|part| match part {
            Part::Stable(0) => Share { own: 0, candidate: None },
            Part::Stable(_) if sole => Share { own: 100 - percent, candidate: Some(percent) },
            Part::Stable(weight) => Share {
                own: factor * weight * (100 - percent) / 100,
                candidate: Some(factor * weight * percent / 100),
            },
            Part::Other(weight) => Share { own: factor * weight, candidate: None },
        })
        .collect();
    if shares.iter().all(|share| within(share, limit)) {
        return Ok(Some(shares));
    }
    let common =
        shares.iter().fold(0, |known, share| gcd(gcd(known, share.own), share.candidate.unwrap_or(0)));
    let reduced: Vec<Share> = shares
        .iter()
        .map(|share| Share { own: share.own / common, candidate: share.candidate.map(|c| c / common) })
        .collect();
    if reduced.iter().all(|share| within(share, limit)) { Ok(Some(reduced)) } else { Err(TooLarge) }
}

fn within(share: &Share, limit: u64) -> bool {
    share.own <= limit && share.candidate.unwrap_or(0) <= limit
}

/// The greatest common divisor; that of 0 and a number is the number.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Part::{Other, Stable};
    use super::*;
    use proptest::prelude::*;

    fn divided(parts: &[Part], percent: u32) -> Vec<(u64, Option<u64>)> {
        let shares = divide(parts, percent, 1_000_000).unwrap().unwrap();
        shares.iter().map(|share| (share.own, share.candidate)).collect()
    }

    #[test]
    fn weights_are_percents_where_they_can_be_and_small_where_not() {
        assert_eq!(divided(&[Stable(1)], 5), [(95, Some(5))]);
        assert_eq!(divided(&[Stable(7)], 50), [(50, Some(50))]);
        assert_eq!(divided(&[Stable(3)], 100), [(0, Some(100))]);
        assert_eq!(divided(&[Stable(1), Other(0)], 20), [(80, Some(20)), (0, None)]);
        assert_eq!(divided(&[Stable(90), Other(10)], 50), [(45, Some(45)), (10, None)]);
        assert_eq!(divided(&[Stable(90), Other(10)], 5), [(171, Some(9)), (20, None)]);
        assert_eq!(divided(&[Stable(0), Stable(2), Other(1)], 50), [(0, None), (1, Some(1)), (1, None)]);
        assert_eq!(divided(&[Stable(1)], 0), [(100, Some(0))]);
        assert_eq!(divided(&[Stable(90), Other(10)], 0), [(90, Some(0)), (10, None)]);
    }

    #[test]
    fn what_cannot_be_exact_is_not_made_up() {
        assert_eq!(divide(&[Stable(999_983), Other(1)], 7, 1_000_000), Err(TooLarge));
        // Common factors help.
        assert!(divide(&[Stable(1_000_000), Other(1_000_000)], 7, 1_000_000).is_ok());
        assert_eq!(divide(&[Stable(0), Other(1)], 7, 1_000_000), Ok(None));
    }

    proptest! {
        #[test]
        fn every_share_is_kept_exactly(
            parts in proptest::collection::vec((any::<bool>(), 0_u64..2000), 1..6),
            percent in 0_u32..=100,
        ) {
            let parts: Vec<Part> =
                parts.into_iter().map(|(s, w)| if s { Stable(w) } else { Other(w) }).collect();
            let Some(shares) = divide(&parts, percent, 1_000_000).unwrap() else { return Ok(()) };
            let before: u64 = parts.iter().map(|p| p.weight()).sum();
            let after: u64 = shares.iter().map(|s| s.own + s.candidate.unwrap_or(0)).sum();
            for (part, share) in parts.iter().zip(&shares) {
                let total = share.own + share.candidate.unwrap_or(0);
                prop_assert_eq!(u128::from(total) * u128::from(before), u128::from(part.weight()) * u128::from(after));
                if let Some(candidate) = share.candidate {
                    prop_assert_eq!(candidate * 100, total * u64::from(percent));
                }
            }
        }
    }
}
