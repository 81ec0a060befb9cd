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
//
// Where it is the strictness alone that refuses a file, the member "lenient"
// holds the documents as read without it. That tells a key written twice from a
// key that overrides a merged one, which the strict reading refuses as well.
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

// reading is what a file comes to: Documents, or an Error.
type reading struct {
	Documents []json.RawMessage
	Error     string
	// Lenient is set when there is an Error that the lenient reading lacks.
	Lenient []json.RawMessage
}

// MarshalJSON leaves out what does not apply, but not an empty list of
// documents, which is a result.
func (r reading) MarshalJSON() ([]byte, error) {
	members := map[string]any{}
	if r.Error == "" {
		members["documents"] = append([]json.RawMessage{}, r.Documents...)
	} else {
		members["error"] = r.Error
		if r.Lenient != nil {
			members["lenient"] = r.Lenient
		}
	}
	return encode(members, "")
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

// read reads a file strictly, and when that fails, leniently as well.
func read(text []byte) reading {
	documents, err := convert(text, yaml.YAMLToJSONStrict)
	if err == nil {
		return reading{Documents: documents}
	}
	lenient, lenientErr := convert(text, yaml.YAMLToJSON)
	if lenientErr != nil {
		lenient = nil
	}
	return reading{Error: err.Error(), Lenient: lenient}
}

// convert gives the documents of a file as JSON, or the first error.
func convert(text []byte, toJSON func([]byte) ([]byte, error)) ([]json.RawMessage, error) {
	var documents []json.RawMessage
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		converted, err := toJSON(document)
		if err != nil {
			return nil, err
		}
		documents = append(documents, converted)
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
