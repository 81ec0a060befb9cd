// Package stages makes the configuration of kwok, the player of simulated nodes
// and pods: how a node becomes ready, how a claim gets its volume, and how a pod
// acts out what the tags of its images say.
//
// A stage is kwok's unit: a selector, a delay, and a template of the object's
// next status. Those of nodes and volumes are plain YAML. For pods there is one
// stage for each rule in rules.go: the question which rule is next for a pod is
// written once (next.jq), and so is the status that follows (pod.tmpl); this
// file puts the rules into both.
package stages

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/component-base/version"
)

//go:embed next.jq
var nextQuery string

//go:embed pod.tmpl
var podTemplate string

//go:embed node.yaml
var nodeStages string

//go:embed volume.yaml
var volumeStages string

// Config is the text of kwok's configuration file.
func Config() (string, error) {
	nodes := fill(nodeStages, "@KUBERNETES@", version.Get().GitVersion)
	documents := []string{strings.TrimSpace(nodes), strings.TrimSpace(volumeStages)}
	stages := []stage{deletion(), podStage(startStage, 0, nil), podStage("gates", 0, nil)}
	for _, r := range rules {
		stages = append(stages, podStage(r.name, r.after, r.event))
	}
	for _, s := range stages {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return "", fmt.Errorf("stage %v: %w", s["metadata"], err)
		}
		documents = append(documents, string(text))
	}
	return strings.Join(documents, "\n---\n") + "\n", nil
}

// stage is an object of kwok's kind Stage. Its Go types would do as well, but
// they carry defaults for a conversion that is not wanted here.
type stage = map[string]any

// deletion: a pod that is being deleted is gone at once, whatever its grace
// period; there is no process to wait for.
func deletion() stage {
	return newStage("delete", map[string]any{
		"selector": map[string]any{"matchExpressions": []any{
			map[string]any{"key": ".metadata.deletionTimestamp", "operator": "Exists"},
		}},
		"steps": []any{map[string]any{"delete": true}},
	})
}

// startStage is the first of every pod: it gives the pod its start time.
const startStage = "start"

// podStage is the stage that next.jq calls name.
func podStage(name string, afterMilliseconds int, e *event) stage {
	var steps []any
	if e != nil {
		steps = append(steps, map[string]any{"event": e})
	}
	steps = append(steps, map[string]any{"patch": map[string]any{
		"subresource": "status",
		"root":        "status",
		"template":    template(name),
	}})
	// next.jq would find out by itself whether the pod has started. But it is
	// the dear part of a selector, and kwok asks every stage at every change of
	// every pod, so the cheap question goes first.
	started := "Exists"
	if name == startStage {
		started = "DoesNotExist"
	}
	spec := map[string]any{
		"selector": map[string]any{"matchExpressions": []any{
			map[string]any{"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
			map[string]any{"key": ".status.startTime", "operator": started},
			map[string]any{"key": query(), "operator": "In", "values": []string{name}},
		}},
		"steps": steps,
	}
	if afterMilliseconds > 0 {
		spec["delay"] = map[string]any{"durationMilliseconds": afterMilliseconds}
	}
	return newStage(name, spec)
}

func newStage(name string, spec map[string]any) stage {
	spec["resourceRef"] = map[string]any{"apiGroup": "v1", "kind": "Pod"}
	return stage{
		"apiVersion": "kwok.x-k8s.io/v1alpha1",
		"kind":       "Stage",
		"metadata":   map[string]any{"name": "pod-" + name},
		"spec":       spec,
	}
}

// query is next.jq with the rules in place.
func query() string {
	var chain strings.Builder
	var names []string
	for i, r := range rules {
		names = append(names, r.name)
		fmt.Fprintf(&chain, "if %s then %d\n  el", r.jq(), i)
	}
	chain.WriteString("se empty end")
	return fill(nextQuery, "@RULES@", chain.String(), "@NAMES@", quoted(names))
}

// template is pod.tmpl for one stage, with the rules in place.
func template(stage string) string {
	var chain strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&chain, "{{- else if %s -}}{{- $rule = %q -}}{{- $to = %q -}}{{- $overdue = %d -}}\n    ",
			r.gotpl(), r.name, r.to, r.overdue)
	}
	return fill(podTemplate, "@RULES@", strings.TrimSpace(chain.String()), "@STAGE@", stage)
}

// jq is the rule's condition on what "container" in next.jq makes.
func (r rule) jq() string {
	tags, sense := r.tags, ""
	if tags == nil {
		tags, sense = meaningfulTags, " | not"
	}
	conditions := []string{
		fmt.Sprintf(".state == %q", r.from),
		fmt.Sprintf("(.tag | IN(%s[])%s)", quoted(tags), sense),
	}
	switch r.restarts {
	case noRestarts:
		conditions = append(conditions, ".restarts == 0")
	case fewRestarts:
		conditions = append(conditions, fmt.Sprintf(".restarts < %d", quickRestarts))
	case manyRestarts:
		conditions = append(conditions, fmt.Sprintf(".restarts >= %d", quickRestarts))
	}
	if r.taskOnly {
		conditions = append(conditions, ".task")
	}
	if r.unsettled {
		conditions = append(conditions, "(.task or (.ready | not))")
	}
	return strings.Join(conditions, " and ")
}

// gotpl is the same condition on the variables of "container" in pod.tmpl.
func (r rule) gotpl() string {
	tags, sense := r.tags, "has"
	if tags == nil {
		tags, sense = meaningfulTags, "not (has"
	}
	list := `(list "` + strings.Join(tags, `" "`) + `")`
	tag := fmt.Sprintf("(%s $tag %s)", sense, list)
	if r.tags == nil {
		tag += ")"
	}
	conditions := []string{fmt.Sprintf("(eq $state %q)", r.from), tag}
	switch r.restarts {
	case noRestarts:
		conditions = append(conditions, "(eq $restarts 0)")
	case fewRestarts:
		conditions = append(conditions, fmt.Sprintf("(lt $restarts %d)", quickRestarts))
	case manyRestarts:
		conditions = append(conditions, fmt.Sprintf("(ge $restarts %d)", quickRestarts))
	}
	if r.taskOnly {
		conditions = append(conditions, "$task")
	}
	if r.unsettled {
		conditions = append(conditions, "(or $task (not $ready))")
	}
	return "and " + strings.Join(conditions, " ")
}

// fill replaces each mark by its text.
func fill(text string, marksAndTexts ...string) string {
	return strings.NewReplacer(marksAndTexts...).Replace(text)
}

func quoted(words []string) string {
	text, _ := json.Marshal(words) // strings always can be
	return string(text)
}
