//! The share of pods as the share of traffic: one Service over both variants, for clusters without a router.

/// How many pods each variant has, `(stable, candidate)`, when `total` are wanted and the candidate is to get `weight`
/// percent of the traffic of one Service over both. Together never fewer than `total`. The candidate has at least one pod
/// when it is to get traffic at all, and stable has one unless all traffic is asked for: a share in between needs both.
pub fn counts(total: u32, weight: u32) -> (u32, u32) {
    if total == 0 || weight == 0 {
        return (total, 0);
    }
    if weight >= 100 {
        return (0, total);
    }
    let asked = (u64::from(total) * u64::from(weight)).div_ceil(100);
    let most = u64::from(total).saturating_sub(1).max(1);
    let candidate = u32::try_from(asked.clamp(1, most)).unwrap_or(total);
    (total.saturating_sub(candidate).max(1), candidate)
}

/// The candidate's share of traffic in percent, as a number of pods on each side makes it.
pub fn share(stable: u32, candidate: u32) -> f64 {
    match stable.saturating_add(candidate) {
        0 => 0.0,
        total => f64::from(candidate) * 100.0 / f64::from(total),
    }
}

/// The smallest share of traffic, in percent, that so many pods allow; 0 when there are none.
pub fn smallest_share(total: u32) -> f64 {
    let (stable, candidate) = counts(total, 1);
    share(stable, candidate)
}

/// What is to be said when the counts make another share of what was asked; `None` when they make it exactly.
pub fn said(total: u32, weight: u32) -> Option<String> {
    let (stable, candidate) = counts(total, weight);
    if total == 0 && weight > 0 {
        return Some(format!("{weight}% asked, but no pods are wanted, so there is no traffic to share"));
    }
    let made = share(stable, candidate);
    if total == 0 || (made - f64::from(weight)).abs() < 1e-9 {
        return None;
    }
    let pods = if total == 1 { "1 pod allows".to_owned() } else { format!("{total} pods allow") };
    Some(if candidate == 1 && made > f64::from(weight) {
        format!("{weight}% asked, {}% is the smallest share that {pods}", rounded(made))
    } else {
        let all = u64::from(stable) + u64::from(candidate);
        format!("{weight}% asked, {}% is the nearest share that {pods} ({candidate} of {all})", rounded(made))
    })
}

/// One place after the point, and none where it is zero.
fn rounded(percent: f64) -> String {
    let text = format!("{percent:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pods_are_counted_as_shares() {
        let table = [
            ((4, 0), (4, 0)),
            ((4, 5), (3, 1)),
            ((4, 25), (3, 1)),
            ((4, 26), (2, 2)),
            ((4, 90), (1, 3)),
            ((4, 100), (0, 4)),
            ((10, 10), (9, 1)),
            ((1, 10), (1, 1)),
            ((1, 100), (0, 1)),
            ((0, 50), (0, 0)),
        ];
        for ((total, weight), expected) in table {
            assert_eq!(counts(total, weight), expected, "{total} pods, {weight}%");
        }
    }

    #[test]
    fn what_the_counts_cannot_do_is_said() {
        assert_eq!(said(4, 5).as_deref(), Some("5% asked, 25% is the smallest share that 4 pods allow"));
        assert_eq!(said(1, 5).as_deref(), Some("5% asked, 50% is the smallest share that 1 pod allows"));
        assert_eq!(
            said(3, 50).as_deref(),
            Some("50% asked, 66.7% is the nearest share that 3 pods allow (2 of 3)")
        );
        assert_eq!(said(4, 25), None);
        assert_eq!(said(4, 0), None);
        assert_eq!(said(4, 100), None);
        assert!((smallest_share(8) - 12.5).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn capacity_is_never_below_what_is_wanted(total in 0_u32..500, weight in 0_u32..=100) {
            let (stable, candidate) = counts(total, weight);
            prop_assert!(stable + candidate >= total);
            prop_assert!(stable + candidate <= total.max(2));
            if total > 0 && weight > 0 { prop_assert!(candidate >= 1); }
            if total > 0 && weight < 100 { prop_assert!(stable >= 1); }
        }

        #[test]
        fn a_larger_weight_never_means_a_smaller_share(total in 0_u32..200, weight in 0_u32..100) {
            prop_assert!(counts(total, weight + 1).1 >= counts(total, weight).1);
        }
    }
}
