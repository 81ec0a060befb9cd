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
	started := ask(".status.startTime", "Exists")
	stages := []stage{
		deletion(),
		podStage("start", 0, nil, ask(".status.startTime", "DoesNotExist")),
		podStage("gates", 0, nil, started, ask(".spec.readinessGates", "Exists")),
	}
	for _, r := range rules {
		stages = append(stages, podStage(r.name, r.after, r.event, started, r.possible()))
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
		"selector": map[string]any{"matchExpressions": []any{ask(".metadata.deletionTimestamp", "Exists")}},
		"steps":    []any{map[string]any{"delete": true}},
	})
}

// podStage is the stage that next.jq calls name.
//
// The question in next.jq is the dear part of its selector, and kwok asks every
// stage at every change of every pod. So it is asked last, after some that are
// cheap and rule out nearly every stage for nearly every pod.
func podStage(name string, afterMilliseconds int, e *event, cheap ...map[string]any) stage {
	var steps []any
	if e != nil {
		steps = append(steps, map[string]any{"event": e})
	}
	steps = append(steps, map[string]any{"patch": map[string]any{
		"subresource": "status",
		"root":        "status",
		"template":    template(name),
	}})
	questions := append([]map[string]any{ask(".metadata.deletionTimestamp", "DoesNotExist")}, cheap...)
	spec := map[string]any{
		"selector": map[string]any{"matchExpressions": append(questions, ask(query(), "In", name))},
		"steps":    steps,
	}
	if afterMilliseconds > 0 {
		spec["delay"] = map[string]any{"durationMilliseconds": afterMilliseconds}
	}
	return newStage(name, spec)
}

// ask is one of a selector's conditions.
func ask(jq, operator string, values ...string) map[string]any {
	condition := map[string]any{"key": jq, "operator": operator}
	if len(values) > 0 {
		condition["values"] = values
	}
	return condition
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

// possible is a cheap question that must be answered well for the rule to fit
// any container of a pod.
func (r rule) possible() map[string]any {
	if r.tags == nil {
		return ask(".spec.restartPolicy", "NotIn", "Always")
	}
	var named []string
	for _, tag := range r.tags {
		named = append(named, fmt.Sprintf("contains(%q)", ":"+tag))
	}
	return ask(fmt.Sprintf(".spec.containers[].image, .spec.initContainers[]?.image | select(%s)", strings.Join(named, " or ")), "Exists")
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
