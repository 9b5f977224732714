package cedar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
)

// at says where in the source something is wrong.
func (s source) at(offset int, format string, args ...any) error {
	offset = max(0, min(offset, len(s.text)))
	line := 1 + bytes.Count(s.text[:offset], []byte("\n"))
	return fmt.Errorf("cedar: %s:%d: %w", s.name, line, fmt.Errorf(format, args...))
}

// addPolicies reads policies. Each is known by its place.
func (s *policy) addPolicies(from source) error {
	// The tokenizer reports these without their place.
	for i := 0; i < len(from.text); {
		r, size := utf8.DecodeRune(from.text[i:])
		if r == 0 || (r == utf8.RuneError && size == 1) {
			return from.at(i, "a byte %#x that is no text", from.text[i])
		}
		i += size
	}
	list, err := cedar.NewPolicyListFromBytes(from.name, from.text)
	var number *strconv.NumError
	switch {
	case errors.As(err, &number):
		return from.at(bytes.Index(from.text, []byte(number.Num)), "the number %s is out of range", number.Num)
	case err != nil:
		// The parser does not know the name, only line and column.
		return fmt.Errorf("cedar: %s", strings.ReplaceAll(err.Error(), "<input>", from.name))
	}
	for _, one := range list {
		place := one.Position()
		if err := checkScope(one); err != nil {
			return from.at(place.Offset, "%w", err)
		}
		id := cedar.PolicyID(fmt.Sprintf("%s:%d:%d", from.name, place.Line, place.Column))
		if s.policies[id] != nil {
			return from.at(place.Offset, "the file is named twice")
		}
		s.policies[id] = one
	}
	return nil
}

// scope is what Cedar's JSON format says of one part of a policy's scope.
type scope struct {
	Op     string `json:"op"`
	Entity struct {
		Type types.EntityType `json:"type"`
	} `json:"entity"`
	EntityType types.EntityType `json:"entity_type"`
}

// checkScope refuses a policy that can never match, because it is about a
// principal, an action or a resource of a type that no request has.
func checkScope(one *cedar.Policy) error {
	raw, err := one.MarshalJSON()
	if err != nil {
		return err
	}
	var parts struct{ Principal, Action, Resource scope }
	if err := json.Unmarshal(raw, &parts); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		scope
		want types.EntityType
	}{{"principal", parts.Principal, TypeUser}, {"action", parts.Action, TypeAction}, {"resource", parts.Resource, TypeObject}} {
		is := part.EntityType
		if part.Op == "==" {
			is = part.Entity.Type
		}
		if is == "" || is == part.want {
			continue
		}
		hint := ""
		if part.Op == "==" && part.name == "principal" {
			hint = "; for those who have a role write \"principal in\""
		}
		return fmt.Errorf("this policy can never apply: the %s is a %s and never a %s%s", part.name, part.want, is, hint)
	}
	return nil
}

// addEntities reads an array of entities.
func (s *policy) addEntities(from source) error {
	var elements []json.RawMessage
	if err := json.Unmarshal(from.text, &elements); err != nil {
		offset := 0
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syntax):
			offset = int(syntax.Offset)
		case errors.As(err, &kind):
			offset = int(kind.Offset)
		}
		return from.at(offset, "%w", err)
	}
	offset := 0
	for _, element := range elements {
		// Between two elements there are a comma and spaces, so this finds the
		// element and nothing before it.
		offset += bytes.Index(from.text[offset:], element)
		entity, err := readEntity(element)
		if err != nil {
			return from.at(offset, "%w", err)
		}
		if _, twice := s.entities[entity.UID]; twice {
			return from.at(offset, "the entity %s is there twice", entity.UID)
		}
		s.entities[entity.UID] = entity
		offset += len(element)
	}
	return nil
}

// readEntity reads one entity, member by member: encoding/json would take "Parents"
// for "parents", and the last of two.
func readEntity(raw json.RawMessage) (types.Entity, error) {
	var e types.Entity
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return e, errors.New("an entity has to be an object")
	}
	var seen []string
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return e, err
		}
		name, _ := token.(string)
		if slices.Contains(seen, name) {
			return e, fmt.Errorf("the member %q is there twice", name)
		}
		seen = append(seen, name)
		var into any
		switch name {
		case "uid":
			into = &e.UID
		case "parents":
			into = &e.Parents
		case "attrs":
			into = &e.Attributes
		case "tags":
			into = &e.Tags
		default:
			return e, fmt.Errorf("the member %q is unknown; an entity has uid, parents, attrs and tags", name)
		}
		if err := dec.Decode(into); err != nil {
			return e, fmt.Errorf("%s: %w", name, err)
		}
	}
	if e.UID.Type == "" || e.UID.ID == "" {
		return e, errors.New("the entity has no uid with a type and an id")
	}
	return e, nil
}
