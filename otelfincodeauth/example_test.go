package otelfincodeauth_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/fincodeauth/fincodeauth"
	"github.com/fincodeauth/fincodeauth/fincodetest"
	"github.com/fincodeauth/fincodeauth/otelfincodeauth"
)

// Metrics of one tenant. A program gives its providers to otel.SetMeterProvider and
// otel.SetTracerProvider, and needs no option for them. Here, a reader prints one metric.
func Example() {
	reader := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	srv := fincodetest.NewServer(fincodetest.Config{})
	defer srv.Close()

	telemetry, err := otelfincodeauth.New(
		otelfincodeauth.WithMeterProvider(provider), // without: the global one
		otelfincodeauth.WithAttributes(semconv.ServerAddress("acme.fincode.tech")),
	)
	if err != nil {
		log.Print(err)
		return
	}
	sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: srv.URL, Observe: telemetry.Observe})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
	stop, err := telemetry.Watch(sessions) // the gauges
	if err != nil {
		log.Print(err)
		return
	}
	defer stop()

	if err := sessions.Login(context.Background(), "operations", credentials); err != nil {
		log.Print(err)
		return
	}
	printSum(reader, "fincode.session.logins")
	printSum(reader, "fincode.session.in_memory")
	// Output:
	// fincode.session.logins server.address=acme.fincode.tech: 1
	// fincode.session.in_memory server.address=acme.fincode.tech: 1
}

// Logs and metrics: Config.Observe calls both.
func ExampleTelemetry_Observe() {
	telemetry, err := otelfincodeauth.New()
	if err != nil {
		log.Print(err)
		return
	}
	logEvent := fincodeauth.LogEvents(slog.Default())
	sessions, err := fincodeauth.New(fincodeauth.Config{
		BaseURL: fincodeauth.Production("acme"),
		Observe: func(e fincodeauth.Event) {
			logEvent(e)
			telemetry.Observe(e)
		},
	})
	if err != nil {
		log.Print(err)
		return
	}
	defer closeSessions(sessions)
}

// Two tenants in one process: each has its own Telemetry, and its own attribute.
func ExampleWithAttributes() {
	for _, tenant := range []string{"acme", "globex"} {
		telemetry, err := otelfincodeauth.New(otelfincodeauth.WithAttributes(semconv.ServerAddress(tenant + ".fincode.tech")))
		if err != nil {
			log.Print(err)
			return
		}
		sessions, err := fincodeauth.New(fincodeauth.Config{BaseURL: fincodeauth.Production(tenant), Observe: telemetry.Observe})
		if err != nil {
			log.Print(err)
			return
		}
		defer closeSessions(sessions)
	}
}

// closeSessions gives the store 30 seconds to accept the tokens that are not saved yet.
func closeSessions(sessions *fincodeauth.Sessions) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := sessions.Close(ctx); err != nil {
		log.Print(err)
	}
}

func printSum(reader *sdkmetric.ManualReader, name string) {
	var rm metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &rm); err != nil {
		log.Print(err)
		return
	}
	for _, m := range rm.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == name {
			p := sum.DataPoints[0]
			fmt.Printf("%s %s: %d\n", name, p.Attributes.Encoded(attribute.DefaultEncoder()), p.Value)
		}
	}
}
