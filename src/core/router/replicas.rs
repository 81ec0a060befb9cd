//! The share of pods as the share of traffic: one Service over both variants, for clusters without a router. Stable keeps its
//! pods, and the candidate's stand beside them.

/// The candidate's share of traffic in percent, as a number of pods on each side makes it.
pub fn share(stable: i64, candidate: i64) -> f64 {
    match stable.max(0).saturating_add(candidate.max(0)) {
        0 => 0.0,
        total => candidate.max(0) as f64 * 100.0 / total as f64,
    }
}

/// What is to be said when so many pods on each side make another share than was asked, in percent; `None` when they make it
/// exactly.
pub fn said(stable: i64, candidate: i64, asked: u32) -> Option<String> {
    let (made, all) = (share(stable, candidate), stable.saturating_add(candidate));
    if (made - f64::from(asked)).abs() < 1e-9 {
        return None;
    }
    let pods = format!("{candidate} of {all} pods");
    Some(if candidate == 1 && made > f64::from(asked) {
        format!("{asked}% asked, {}% is the smallest share that the pods allow ({pods})", rounded(made))
    } else {
        format!("{asked}% asked, {}% is the nearest share that the pods allow ({pods})", rounded(made))
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

    #[test]
    fn what_the_counts_cannot_do_is_said() {
        assert_eq!(said(3, 1, 25), None);
        assert_eq!(said(2, 2, 50), None);
        let told = |stable, candidate, asked| said(stable, candidate, asked).unwrap_or_default();
        assert_eq!(told(3, 1, 5), "5% asked, 25% is the smallest share that the pods allow (1 of 4 pods)");
        assert_eq!(told(5, 3, 30), "30% asked, 37.5% is the nearest share that the pods allow (3 of 8 pods)");
        assert_eq!(told(4, 4, 80), "80% asked, 50% is the nearest share that the pods allow (4 of 8 pods)");
        assert_eq!(share(0, 0), 0.0);
    }
}
