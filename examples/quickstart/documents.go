package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/bson/primitive"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"

	"github.com/mandate-auth/mandate/engine"
)

// documents are the service's own data: what Mandate guards.
type documents struct{ coll *mongo.Collection }

type document struct {
	ID        primitive.ObjectID `bson:"_id" json:"id"`
	Owner     string             `bson:"owner" json:"owner"`
	Title     string             `bson:"title" json:"title"`
	CreatedAt time.Time          `bson:"created_at" json:"created_at"`
}

// list needs documents:read.
func (d documents) list(w http.ResponseWriter, r *http.Request) {
	cursor, err := d.coll.Find(r.Context(), bson.M{}, options.Find().SetSort(bson.M{"_id": -1}).SetLimit(50))
	found := []document{}
	if err == nil {
		err = cursor.All(r.Context(), &found)
	}
	if err != nil {
		http.Error(w, "the documents cannot be read", http.StatusServiceUnavailable)
		return
	}
	reply(w, http.StatusOK, map[string]any{"documents": found})
}

// create needs documents:create. The document belongs to whoever creates it.
func (d documents) create(w http.ResponseWriter, r *http.Request) {
	var in struct{ Title string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&in)
	title := strings.TrimSpace(in.Title)
	if err != nil || title == "" || len(title) > 200 {
		http.Error(w, `send {"title": …} with 1 to 200 bytes`, http.StatusUnprocessableEntity)
		return
	}
	doc := document{ID: primitive.NewObjectID(), Owner: engine.PrincipalFrom(r.Context()).ID, Title: title, CreatedAt: time.Now().UTC()}
	if _, err := d.coll.InsertOne(r.Context(), doc); err != nil {
		http.Error(w, "the document cannot be stored", http.StatusServiceUnavailable)
		return
	}
	reply(w, http.StatusCreated, doc)
}

// owner tells the guard of delete whose document it is. The guard answers 404
// when there is none.
func (d documents) owner(r *http.Request) (string, error) {
	id, err := primitive.ObjectIDFromHex(r.PathValue("id"))
	if err != nil {
		return "", engine.ErrNotFound
	}
	var doc document
	err = d.coll.FindOne(r.Context(), bson.M{"_id": id}).Decode(&doc)
	return doc.Owner, err
}

// remove needs the owner, or documents:delete.
func (d documents) remove(w http.ResponseWriter, r *http.Request) {
	id, err := primitive.ObjectIDFromHex(r.PathValue("id"))
	if err == nil {
		_, err = d.coll.DeleteOne(r.Context(), bson.M{"_id": id})
	}
	if err != nil {
		http.Error(w, "the document cannot be removed", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
