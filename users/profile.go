package users

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/engine/event"
)

// Limits of a profile.
const (
	profileBytes = 16 << 10
	profileKeys  = 64
	profileDepth = 4
)

// profileKey is what a key may look like: with a dot or a dollar it would be a
// path or an operator to MongoDB.
var profileKey = regexp.MustCompile(`^[A-Za-z0-9_]{1,64}$`)

// checkProfile refuses a profile beyond the limits. The values are those that
// JSON knows.
func checkProfile(p map[string]any) error {
	if err := checkMembers("profile", p, 1); err != nil {
		return err
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return invalid("profile", "holds a value that is not JSON")
	}
	if len(raw) > profileBytes {
		return invalid("profile", "has %d bytes as JSON, at most %d are kept", len(raw), profileBytes)
	}
	return nil
}

func checkMembers(path string, p map[string]any, depth int) error {
	if len(p) > profileKeys {
		return invalid(path, "has %d members, at most %d are kept", len(p), profileKeys)
	}
	for key, value := range p {
		if !profileKey.MatchString(key) {
			return invalid(path, "has a member whose name is not 1 to 64 letters, digits or _")
		}
		if err := checkValue(path+"."+key, value, depth); err != nil {
			return err
		}
	}
	return nil
}

func checkValue(path string, value any, depth int) error {
	if depth > profileDepth {
		return invalid(path, "is nested deeper than %d", profileDepth)
	}
	switch v := value.(type) {
	case string, bool, int, int32, int64:
		return nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return invalid(path, "is not a JSON number")
		}
		return nil
	case map[string]any:
		return checkMembers(path, v, depth+1)
	case []any:
		return checkList(path, v, depth)
	case bson.A:
		return checkList(path, v, depth)
	default:
		return invalid(path, "has a value that is not kept: %T", value)
	}
}

func checkList(path string, list []any, depth int) error {
	for i, item := range list {
		if err := checkValue(fmt.Sprintf("%s.%d", path, i), item, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// UpdateProfile changes members of the user's profile as a JSON merge patch
// (RFC 7396) does at its first level: a nil value removes a member. Two updates
// at once both count. The limits are 64 members at each level, 16 KiB, depth 4.
func (s *Store) UpdateProfile(ctx context.Context, id string, patch map[string]any) (*User, error) {
	for range 5 {
		r, err := s.read(ctx, bson.M{"_id": id, "app": s.config.App})
		if err != nil {
			return nil, err
		}
		merged := maps.Clone(r.Profile)
		if merged == nil {
			merged = map[string]any{}
		}
		for key, value := range patch {
			if value == nil {
				delete(merged, key)
			} else {
				merged[key] = value
			}
		}
		if err := checkProfile(merged); err != nil {
			return nil, err
		}
		before := r.UpdatedAt
		r.Profile, r.UpdatedAt = merged, s.nextUpdate(before)
		err = s.update(ctx, bson.M{"_id": id, "app": s.config.App, "updated_at": before},
			bson.M{"profile": merged, "updated_at": r.UpdatedAt})
		if errors.Is(err, ErrChanged) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.report(ctx, event.UserUpdated, event.Success, id, "")
		return &r.User, nil
	}
	return nil, ErrChanged
}
