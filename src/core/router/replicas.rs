//! The share of pods as the share of traffic: one Service over both variants, for clusters without a router.

/// How many pods a candidate has beside `stable` ones, which stay, so that it gets at most `weight` percent of the traffic of one
/// Service over both. One at least, since there is no candidate without; at most as many as stable has.
pub fn beside(stable: u32, weight: u32) -> u32 {
    let rest = u64::from(100 - weight.min(99));
    let exact = u64::from(stable) * u64::from(weight) / rest;
    u32::try_from(exact).unwrap_or(u32::MAX).clamp(1, stable.max(1))
}

/// The candidate's share of traffic in percent, as a number of pods on each side makes it.
fn share(stable: u32, candidate: u32) -> f64 {
    f64::from(candidate) * 100.0 / (f64::from(stable) + f64::from(candidate)).max(1.0)
}

/// What is to be said when so many pods make another share of what was asked; `None` when they make it exactly.
pub fn said(stable: u32, weight: u32) -> Option<String> {
    if weight == 0 {
        return None;
    }
    let candidate = beside(stable, weight);
    let made = share(stable, candidate);
    if (made - f64::from(weight)).abs() < 1e-9 {
        return None;
    }
    let which = match made > f64::from(weight) {
        true => "the smallest share",
        false if candidate == stable => "the largest share",
        false => "the next smaller share",
    };
    let made = rounded(made);
    Some(format!("{weight}% asked, {made}% is {which} that pods beside {stable} make ({candidate} of {})", {
        u64::from(stable) + u64::from(candidate)
    }))
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
            ((4, 5), 1),
            ((4, 20), 1),
            ((3, 40), 2),
            ((10, 40), 6),
            ((4, 50), 4),
            ((4, 90), 4),
            ((10, 10), 1),
            ((90, 10), 10),
            ((1, 10), 1),
            ((1, 100), 1),
            ((0, 50), 1),
        ];
        for ((stable, weight), expected) in table {
            assert_eq!(beside(stable, weight), expected, "{stable} pods, {weight}%");
        }
    }

    #[test]
    fn what_the_counts_cannot_do_is_said() {
        let said = |stable, weight| said(stable, weight).unwrap_or_default();
        assert_eq!(said(3, 5), "5% asked, 25% is the smallest share that pods beside 3 make (1 of 4)");
        assert_eq!(
            said(10, 40),
            "40% asked, 37.5% is the next smaller share that pods beside 10 make (6 of 16)"
        );
        assert_eq!(said(4, 80), "80% asked, 50% is the largest share that pods beside 4 make (4 of 8)");
        assert_eq!(said(3, 40), "");
        assert_eq!(said(4, 0), "");
    }

    proptest! {
        #[test]
        fn no_candidate_gets_more_than_its_weight_but_for_its_one_pod(stable in 1_u32..500, weight in 1_u32..=100) {
            let candidate = beside(stable, weight);
            prop_assert!(candidate >= 1 && candidate <= stable);
            prop_assert!(candidate == 1 || share(stable, candidate) <= f64::from(weight) + 1e-9);
            // And one more would be too many.
            let more = share(stable, candidate + 1);
            prop_assert!(candidate == stable || more > f64::from(weight));
        }

        #[test]
        fn a_larger_weight_never_means_fewer_pods(stable in 0_u32..200, weight in 0_u32..100) {
            prop_assert!(beside(stable, weight + 1) >= beside(stable, weight));
        }
    }
}
