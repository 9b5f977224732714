package localmongo_test

import (
	"context"
	"fmt"
	"log/slog"

	"go.mongodb.org/mongo-driver/bson"

	"github.com/mandate-auth/mandate/localmongo"
)

// A test or a first run needs no server: the client is the driver's own.
func ExampleStart() {
	ctx := context.Background()
	server, err := localmongo.Start(ctx, &localmongo.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close(ctx)

	notes := server.Client().Database("demo").Collection("notes")
	if _, err := notes.InsertOne(ctx, bson.D{{Key: "_id", Value: 1}, {Key: "text", Value: "hello"}}); err != nil {
		fmt.Println(err)
		return
	}
	var note struct{ Text string }
	if err := notes.FindOne(ctx, bson.D{{Key: "_id", Value: 1}}).Decode(&note); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(note.Text)
	// Output: hello
}
