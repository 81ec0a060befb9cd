package launcher

import (
	"context"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// createStorageClass creates the default storage class, whose claims get their
// volumes from a stage (see stages/volume.yaml). Without a node nothing plays
// that stage, and there is no class.
func (a api) createStorageClass(ctx context.Context, nodes int) error {
	if nodes == 0 {
		return nil
	}
	_, err := a.client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "simulated",
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner: "testcluster/simulated",
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
