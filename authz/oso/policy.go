package oso

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Policy returns a policy for Oso Cloud, in Polar, that understands the facts of
// this package: for an app with the roles, of which each has those of the hierarchy
// besides. Store it in the environment, with what else the service has.
func Policy(roles []string, hierarchy map[string][]string) string {
	quote := func(list []string, prefix string) string {
		out := make([]string, len(list))
		for i, name := range list {
			out[i] = fmt.Sprintf("%q", prefix+name)
		}
		return strings.Join(out, ", ")
	}
	var b strings.Builder
	fmt.Fprintf(&b, "actor User {}\n\nresource App {\n  roles = [%s];\n  permissions = [%s];\n\n", quote(roles, ""), quote(roles, rolePrefix))
	for _, role := range roles {
		fmt.Fprintf(&b, "  %q if %q;\n", rolePrefix+role, role)
	}
	for _, role := range slices.Sorted(maps.Keys(hierarchy)) {
		for _, inherited := range hierarchy[role] {
			fmt.Fprintf(&b, "  %q if %q;\n", inherited, role)
		}
	}
	b.WriteString(`}

resource Object {}

# A rule for a user is the fact has_permission itself. A rule for a role:
has_permission(user: User, action: String, object: Resource) if
  app matches App and
  role matches String and
  role_can(app, role, action, object) and
  has_role(user, role, app);
`)
	return b.String()
}
