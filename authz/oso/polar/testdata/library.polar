# Everybody who has a role inherits what is below it by Config.Hierarchy.
actor User {}

resource Object {
  roles = ["user", "editor"];
  permissions = ["read", "write"];

  "read" if "user";
  "write" if "editor";
}

has_role(user: User, name: String, object: Object) if
  object.Name = "documents" and name in user.Roles;

allow(actor, action, resource) if
  has_permission(actor, action, resource) and
  not ("barred" in actor.Roles);

allow(_: User, "read", object: Object) if object.Name = "news";
