//! Volumes: PersistentVolumeClaim, PersistentVolume.

use super::Verdict;
use super::live::Live;

/// A claim. With the binding mode WaitForFirstConsumer it stays Pending until a pod that uses it is
/// scheduled, which may be never (a suspended CronJob's claim). The mode stands in the class, not in the
/// claim; but nobody is asked to provision until then, so the annotation that asks is the mark. A pod that
/// waits for its claim is not ready, which its workload says: not blocking here loses nothing.
pub(super) fn claim(live: &Live<'_>) -> Verdict {
    match live.text("/status/phase") {
        "Bound" => {
            let resize = live.conditions().find(|c| {
                c.is_true() && matches!(c.kind, "Resizing" | "FileSystemResizePending" | "ModifyingVolume")
            });
            let volume = live.text("/spec/volumeName");
            Verdict::healthy(match resize {
                Some(resize) => {
                    format!("is bound to {volume}; a change of the volume is under way ({})", resize.kind)
                }
                None => format!("is bound to {volume}"),
            })
        }
        "Lost" => Verdict::broken(
            "VolumeLost",
            format!("its volume {} does not exist any more", live.text("/spec/volumeName")),
        ),
        _ => {
            let annotated = |key| live.keyed("/metadata/annotations", key);
            let provisioner = annotated("volume.kubernetes.io/storage-provisioner")
                .or_else(|| annotated("volume.beta.kubernetes.io/storage-provisioner"));
            match (provisioner, live.text("/spec/volumeName")) {
                (Some(provisioner), _) => {
                    Verdict::progressing(format!("waits for {provisioner} to make a volume"))
                }
                (None, volume) if !volume.is_empty() => {
                    Verdict::progressing(format!("waits to be bound to {volume}"))
                }
                _ => Verdict::progressing(
                    "is not bound: waits for its first pod (WaitForFirstConsumer) or for a volume that fits; \
                     pods that use it are judged by themselves",
                )
                .without_blocking(),
            }
        }
    }
}

/// A volume.
pub(super) fn volume(live: &Live<'_>) -> Verdict {
    let claim = format!("{}/{}", live.text("/spec/claimRef/namespace"), live.text("/spec/claimRef/name"));
    match live.text("/status/phase") {
        "Available" => Verdict::healthy("is available to claims"),
        "Bound" => Verdict::healthy(format!("is bound to {claim}")),
        // Kept on purpose (reclaim policy Retain): no time will change it, a person has to.
        "Released" => Verdict::suspended(format!(
            "was released by {claim} and is not bound again until spec.claimRef is removed"
        )),
        "Failed" => Verdict::degraded(match live.text("/status/message") {
            "" => "could not be reclaimed".to_owned(),
            message => format!("could not be reclaimed: {}", super::live::first_line(message, 300)),
        })
        .without_blocking(),
        _ => Verdict::progressing("waits for the volume controller"),
    }
}
