package launcher

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeLabel marks the nodes that kwok plays; a real node beside them does not
// have it.
const (
	nodeLabel      = "type"
	nodeLabelValue = "kwok"
)

// simulatedNode is the node number i, larger than any test needs, so that a
// pod never waits for room.
func simulatedNode(i int) *corev1.Node {
	name := fmt.Sprintf("kwok-%d", i)
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1000"),
		corev1.ResourceMemory:           resource.MustParse("4Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("4Ti"),
		corev1.ResourcePods:             resource.MustParse("10000"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				nodeLabel:                          nodeLabelValue,
				corev1.LabelHostname:               name,
				corev1.LabelOSStable:               "linux",
				corev1.LabelArchStable:             "amd64",
				corev1.LabelTopologyRegion:         "here",
				corev1.LabelTopologyZone:           fmt.Sprintf("zone-%d", i%3),
				"node-role.kubernetes.io/agent":    "",
				"node.kubernetes.io/instance-type": "simulated",
			},
			Annotations: map[string]string{"node.alpha.kubernetes.io/ttl": "0"},
		},
		Status: corev1.NodeStatus{Capacity: room, Allocatable: room},
	}
}

func (a api) createNodes(ctx context.Context, count int) error {
	for i := range count {
		_, err := a.client.CoreV1().Nodes().Create(ctx, simulatedNode(i), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}

// nodesReady: ready, and rid of the taint that a new node carries until the
// controller manager has seen it ready, since the scheduler heeds that taint.
func (a api) nodesReady(ctx context.Context, count int) error {
	nodes, err := a.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: nodeLabel + "=" + nodeLabelValue})
	if err != nil {
		return err
	}
	if len(nodes.Items) < count {
		return fmt.Errorf("%d of %d nodes exist", len(nodes.Items), count)
	}
	for _, node := range nodes.Items {
		for _, taint := range node.Spec.Taints {
			if taint.Key == corev1.TaintNodeNotReady {
				return fmt.Errorf("node %s is tainted %s", node.Name, taint.Key)
			}
		}
		ready := false
		for _, condition := range node.Status.Conditions {
			ready = ready || condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
		}
		if !ready {
			return fmt.Errorf("node %s is not ready", node.Name)
		}
	}
	return nil
}
