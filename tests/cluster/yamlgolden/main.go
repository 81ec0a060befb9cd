// Command yamlgolden writes down what Kubernetes' own libraries read in a
// corpus of small YAML files, for a reader in another language to be held
// against:
//
//	go run ./yamlgolden DIR
//
// reads DIR/*.yaml and writes DIR/expected.json, an object with a member for
// each file: {"documents": [...]}, or {"error": "..."} when any document of the
// file cannot be read.
//
// A file is cut into documents as kubectl does it, by lines and before any
// parsing; each document is then converted to JSON with duplicate keys refused.
// A document without content is null here. kubectl passes over those.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// reading is what a file comes to.
type reading struct {
	Documents []json.RawMessage
	Error     string
}

// MarshalJSON writes only the half that applies, so that an empty list of
// documents is not mistaken for an error.
func (r reading) MarshalJSON() ([]byte, error) {
	if r.Error != "" {
		return encode(map[string]string{"error": r.Error}, "")
	}
	documents := r.Documents
	if documents == nil {
		documents = []json.RawMessage{}
	}
	return encode(map[string][]json.RawMessage{"documents": documents}, "")
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: yamlgolden DIR")
		os.Exit(2)
	}
	if err := golden(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "yamlgolden:", err)
		os.Exit(1)
	}
}

// golden reads the corpus in dir and writes the table beside it.
func golden(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return fmt.Errorf("no *.yaml in %s", dir)
	}
	table := map[string]reading{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		table[filepath.Base(path)] = read(text)
	}
	out, err := encode(table, "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "expected.json"), out, 0o644)
}

// read converts each document of a file, up to the first that cannot be read.
func read(text []byte) reading {
	var r reading
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return r
		}
		if err == nil {
			var converted []byte
			converted, err = yaml.YAMLToJSONStrict(document)
			r.Documents = append(r.Documents, converted)
		}
		if err != nil {
			return reading{Error: err.Error()}
		}
	}
}

// encode keeps <, > and & as they are: the table is read by people as well.
func encode(value any, indent string) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	err := encoder.Encode(value)
	return out.Bytes(), err
}
