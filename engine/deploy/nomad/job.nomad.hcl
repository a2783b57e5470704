# A job on Nomad: three copies that are one job. Replace what is marked EXAMPLE, and see README.md one folder above. The
# cluster key and Kafka's settings are items of a Nomad variable, so that no file holds them:
#
#   nomad var put nomad/jobs/orders cluster_key="$(orders cluster-key new)" kafka_properties="$(cat kafka.properties)"
job "orders" {
  datacenters = ["*"]
  type        = "service"

  # A new version comes up as a second set of copies beside the first. The job moves to it once, when the old set goes. A
  # version that never gets ready is not promoted, and the old one goes on.
  update {
    max_parallel     = 3
    canary           = 3
    auto_promote     = true
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "5m"
  }

  group "orders" {
    count = 3

    # One copy for each host, as long as there are hosts.
    spread {
      attribute = "${node.unique.id}"
    }

    # The processes of the job listen at free ports of the host, which Nomad does not know.
    network {
      port "group" {}
      port "http" {}
    }

    restart {
      attempts = 10
      interval = "10m"
      delay    = "5s"
      mode     = "delay"
    }

    service {
      name     = "orders"
      port     = "http"
      provider = "nomad"

      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "5s"
        timeout  = "5s"
      }
    }

    task "job" {
      driver = "docker"

      config {
        image        = "registry.example.org/orders:1" # EXAMPLE
        network_mode = "host"
        args = [
          "run",
          "--store=s3://bucket/fluvial", # EXAMPLE
          "--join",
          "--listen=0.0.0.0:${NOMAD_PORT_group}",
          "--advertise=${NOMAD_ADDR_group}",
          "--cluster-key-file=${NOMAD_SECRETS_DIR}/key",
          "--http=${NOMAD_ADDR_http}",
          "--slots=2",
          "--workers=auto",
          "--stop-within=30s",
          "--log-format=json",
          "--kafka-config=${NOMAD_SECRETS_DIR}/kafka.properties",
          "--input=orders",
          "--output=revenue",
        ]
      }

      env {
        AWS_REGION = "eu-central-1" # EXAMPLE
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/key"
        data        = "{{ with nomadVar \"nomad/jobs/orders\" }}{{ .cluster_key }}{{ end }}"
        perms       = "0444"
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/kafka.properties"
        data        = "{{ with nomadVar \"nomad/jobs/orders\" }}{{ .kafka_properties }}{{ end }}"
        perms       = "0444"
      }

      # --stop-within, and what the other copies need to go on without this one. A client's max_kill_timeout, 30 s by
      # default, must allow it.
      kill_timeout = "60s"

      resources {
        cores  = 2
        memory = 2048
      }
    }
  }
}
