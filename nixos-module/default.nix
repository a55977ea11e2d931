# services.project-yum: the chat server as a hardened systemd service, with its neighbours where wanted.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (lib)
    mkEnableOption
    mkIf
    mkMerge
    mkOption
    types
    ;

  name = "project-yum";
  cfg = config.services.${name};
  listen = cfg.settings.listen;
  metrics = cfg.settings.metrics;

  format = pkgs.formats.toml { };
  configFile = format.generate "${name}.toml" cfg.settings;

  isLoopback = address: lib.hasPrefix "127." address || address == "::1" || address == "localhost";
  bracketed = address: if lib.hasInfix ":" address then "[${address}]" else address;
  # Where a neighbour on this machine reaches what listens on `address`.
  reachable =
    address:
    if address == "0.0.0.0" then
      "127.0.0.1"
    else if address == "::" then
      "[::1]"
    else
      bracketed address;

  hasKey =
    cfg.credentials ? jwt_secret
    || cfg.credentials ? jwt_jwks
    || cfg.settings ? jwt_jwks_file
    || cfg.environmentFiles != [ ];
  hasPassword =
    key:
    cfg.settings ? ${key} && builtins.match ".*://[^/@]*:[^/@]+@.*" (toString cfg.settings.${key}) != null;
  bindsLow = listen.port < 1024;
  drainSeconds = cfg.settings.drain_seconds or 10;
  hasCertificate = cfg.nginx.sslCertificate != null;
in
{
  options.services.${name} = {
    enable = mkEnableOption "project-yum, a real-time chat server for Socket.IO clients";

    package = lib.mkPackageOption pkgs name { };

    settings = mkOption {
      description = ''
        Settings, as in the TOML file of `project-yum --config`: a variable's name in lower case.
        `project-yum config doc` describes them all. They end up in the world-readable Nix store,
        so secrets go into {option}`services.project-yum.credentials` instead.
      '';
      default = { };
      example = {
        listen.address = "0.0.0.0";
        cors_origins = "https://chat.example.org";
        drain_seconds = 20;
      };
      type = types.submodule {
        freeformType = format.type;
        options = {
          listen.address = mkOption {
            type = types.str;
            default = "127.0.0.1";
            example = "0.0.0.0";
            description = "Address to serve clients on.";
          };
          listen.port = mkOption {
            type = types.port;
            default = 4000;
            description = "Port to serve clients on.";
          };
          metrics.address = mkOption {
            type = types.str;
            default = "127.0.0.1";
            description = "Address of `/metrics`, which has no access control.";
          };
          metrics.port = mkOption {
            type = types.port;
            default = 9464;
            description = "Port of `/metrics`.";
          };
        };
      };
    };

    credentials = mkOption {
      type = types.attrsOf (
        types.pathWith {
          inStore = false;
          absolute = true;
        }
      );
      default = { };
      example = {
        jwt_secret = "/run/secrets/chat-jwt";
        database_url = "/run/secrets/chat-database-url";
      };
      description = ''
        Files with the values of secret settings, by the setting's name in lower case. systemd reads them as root
        and hands them to the service alone; the program gets their paths, as `JWT_SECRET_FILE` and so on.
        `jwt_jwks` becomes `JWT_JWKS_FILE`.
      '';
    };

    environmentFiles = mkOption {
      type = types.listOf types.path;
      default = [ ];
      description = "Files with further settings, `NAME=value` a line. Prefer {option}`services.project-yum.credentials` for secrets.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open the clients' port in the firewall; the port of the metrics stays closed.";
    };

    memlock = mkOption {
      type = types.either (types.enum [ "infinity" ]) types.ints.positive;
      default = "infinity";
      example = 67108864;
      description = ''
        How much memory the service may lock, in bytes. Its executors refuse to start below 512 KiB,
        and 8 MiB is enough for every number of shards.
      '';
    };

    extraGroups = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Further groups of the service, such as that of a Unix socket it should reach.";
    };

    database.createLocally = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether to keep messages in a PostgreSQL on this machine, and to make the database and its owner there. The service logs in
        over the Unix socket as the user it runs as. Without this, and without a `database_url`, messages are kept
        in SQLite in the service's state directory.
      '';
    };

    redis.createLocally = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run a Redis on this machine for the service, and to reach it over a Unix socket.";
    };

    prometheus.scrape = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the Prometheus of this machine (`services.prometheus`) scrapes the service.";
    };

    prometheus.rules = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the Prometheus of this machine knows the alert rules that come with the service.";
    };

    nginx.enable = mkEnableOption "nginx in front of the service, with TLS";

    nginx.virtualHost = mkOption {
      type = types.str;
      default = "";
      example = "chat.example.org";
      description = "The name clients connect to. Further settings of it: `services.nginx.virtualHosts.<name>`.";
    };

    nginx.sslCertificate = mkOption {
      type = types.nullOr types.path;
      default = null;
      description = "Certificate of the virtual host. Without one, it is asked for by ACME (see `security.acme`).";
    };

    nginx.sslCertificateKey = mkOption {
      type = types.nullOr (
        types.pathWith {
          inStore = false;
          absolute = true;
        }
      );
      default = null;
      description = "Key of the certificate.";
    };
  };

  config = mkIf cfg.enable (mkMerge [
    {
      assertions = [
        {
          assertion = listen.port != metrics.port;
          message = "services.${name}: listen.port and metrics.port are both ${toString listen.port}.";
        }
        {
          assertion = hasCertificate == (cfg.nginx.sslCertificateKey != null);
          message = "services.${name}: nginx.sslCertificate and nginx.sslCertificateKey belong together.";
        }
        {
          assertion = hasKey || (isLoopback listen.address && !cfg.nginx.enable);
          message = "services.${name}: others can reach the server, but no key is set to know users by: set credentials.jwt_secret.";
        }
        {
          assertion = !cfg.nginx.enable || cfg.nginx.virtualHost != "";
          message = "services.${name}: nginx.enable needs nginx.virtualHost.";
        }
        {
          assertion = cfg.database.createLocally -> !(cfg.credentials ? database_url);
          message = "services.${name}: database.createLocally and credentials.database_url name two databases.";
        }
        {
          assertion = cfg.redis.createLocally -> !(cfg.credentials ? redis_url);
          message = "services.${name}: redis.createLocally and credentials.redis_url name two servers.";
        }
        {
          assertion = !(cfg.settings ? jwt_secret) && !hasPassword "database_url" && !hasPassword "redis_url";
          message = "services.${name}: settings end up in the world-readable Nix store; give secrets by credentials.";
        }
        {
          assertion = lib.all (key: builtins.match "[a-z][a-z0-9_]*" key != null) (
            lib.attrNames cfg.credentials
          );
          message = "services.${name}: credentials are named like settings, in lower case (jwt_secret).";
        }
      ];

      warnings =
        lib.optional (!hasKey && isLoopback listen.address && !cfg.nginx.enable) "services.${name}: no key is set, so the service will refuse to start: set credentials.jwt_secret."
        ++ lib.optional (!isLoopback metrics.address) "services.${name}: /metrics listens on ${metrics.address}; it has no access control, see that only Prometheus reaches it."
        ++ lib.optional (cfg.openFirewall && isLoopback listen.address) "services.${name}: the firewall is open for port ${toString listen.port}, but the server listens on ${listen.address} only.";

      systemd.services.${name} = {
        description = "Real-time chat server";
        wantedBy = [ "multi-user.target" ];
        wants = [ "network-online.target" ];
        after = [
          "network-online.target"
        ]
        ++ lib.optional cfg.database.createLocally "postgresql.target"
        ++ lib.optional cfg.redis.createLocally "redis-${name}.service";
        requires = lib.optional cfg.database.createLocally "postgresql.target";

        environment = lib.mapAttrs' (
          key: _: lib.nameValuePair "${lib.toUpper key}_FILE" "%d/${key}"
        ) cfg.credentials;

        serviceConfig = {
          Type = "notify";
          ExecStart = "${lib.getExe cfg.package} ${
            utils.escapeSystemdExecArgs [
              "--config"
              configFile
            ]
          }";
          ExecReload = "${lib.getExe' pkgs.coreutils "kill"} -HUP $MAINPID";
          Restart = "always";
          RestartSec = 1;
          # Wrong settings, and a machine that cannot run it: trying again helps neither.
          RestartPreventExitStatus = [
            2
            3
          ];
          TimeoutStopSec = drainSeconds + 10;
          WatchdogSec = 30;

          LoadCredential = lib.mapAttrsToList (key: path: "${key}:${path}") cfg.credentials;
          EnvironmentFile = cfg.environmentFiles;

          DynamicUser = true;
          User = name;
          SupplementaryGroups =
            cfg.extraGroups
            ++ lib.optional cfg.redis.createLocally config.services.redis.servers.${name}.user;
          StateDirectory = name;
          StateDirectoryMode = "0700";
          WorkingDirectory = "%S/${name}";
          UMask = "0077";

          LimitMEMLOCK = toString cfg.memlock;
          LimitNOFILE = 1048576;

          CapabilityBoundingSet = if bindsLow then [ "CAP_NET_BIND_SERVICE" ] else [ "" ];
          DevicePolicy = "closed";
          LockPersonality = true;
          MemoryDenyWriteExecute = true;
          NoNewPrivileges = true;
          PrivateDevices = true;
          PrivateIPC = true;
          PrivateMounts = true;
          PrivateTmp = true;
          # A capability in a user namespace of its own would not open a low port of the machine.
          PrivateUsers = !bindsLow;
          ProtectClock = true;
          ProtectControlGroups = true;
          ProtectHome = true;
          ProtectHostname = true;
          ProtectKernelLogs = true;
          ProtectKernelModules = true;
          ProtectKernelTunables = true;
          ProtectProc = "invisible";
          ProtectSystem = "strict";
          RemoveIPC = true;
          # Counts for socket(2) alone: what goes through a ring is not seen by it, nor by the filter below.
          # The protections that stand on mounts, cgroups and users hold for both.
          RestrictAddressFamilies = [
            "AF_INET"
            "AF_INET6"
            "AF_UNIX"
          ];
          RestrictNamespaces = true;
          RestrictRealtime = true;
          RestrictSUIDSGID = true;
          SystemCallArchitectures = "native";
          SystemCallErrorNumber = "EPERM";
          # @system-service holds @aio, which holds io_uring; @resources holds sched_setaffinity. Neither may be denied.
          SystemCallFilter = [
            "@system-service"
            "~@privileged @setuid @keyring"
          ];
        }
        // lib.optionalAttrs bindsLow { AmbientCapabilities = [ "CAP_NET_BIND_SERVICE" ]; };
      };

      networking.firewall.allowedTCPPorts = mkIf cfg.openFirewall [ listen.port ];
    }

    (mkIf (!cfg.database.createLocally && !(cfg.credentials ? database_url)) {
      services.${name}.settings.database_url = lib.mkDefault "sqlite:/var/lib/${name}/chat.db";
    })

    (mkIf cfg.database.createLocally {
      services.${name}.settings.database_url = "postgres:///${name}?host=/run/postgresql&user=${name}";
      services.postgresql = {
        enable = true;
        ensureDatabases = [ name ];
        ensureUsers = [
          {
            inherit name;
            ensureDBOwnership = true;
          }
        ];
      };
    })

    (mkIf cfg.redis.createLocally {
      services.${name}.settings.redis_url =
        "redis+unix://${toString config.services.redis.servers.${name}.unixSocket}";
      services.redis.servers.${name}.enable = true;
    })

    (mkIf cfg.prometheus.scrape {
      services.prometheus.scrapeConfigs = [
        {
          job_name = name;
          static_configs = [ { targets = [ "${reachable metrics.address}:${toString metrics.port}" ]; } ];
        }
      ];
    })

    (mkIf cfg.prometheus.rules {
      services.prometheus.ruleFiles = [ ../deploy/prometheus/rules.yml ];
    })

    (mkIf cfg.nginx.enable {
      # The proxy is on this machine; it says who the client is.
      services.${name}.settings.trust_proxy = lib.mkDefault "127.0.0.1,::1";
      services.nginx = {
        enable = true;
        virtualHosts.${cfg.nginx.virtualHost} = {
          forceSSL = lib.mkDefault true;
          enableACME = lib.mkDefault (!hasCertificate);
          locations."/" = {
            proxyPass = "http://${reachable listen.address}:${toString listen.port}";
            proxyWebsockets = true;
            extraConfig = ''
              # A quiet connection is no dead one: the server pings every 25 s and finds out by itself.
              proxy_read_timeout 1h;
              proxy_send_timeout 1h;
              proxy_buffering off;
              proxy_set_header Host $host;
              proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
              proxy_set_header X-Forwarded-Proto $scheme;
            '';
          };
        }
        // lib.optionalAttrs hasCertificate {
          inherit (cfg.nginx) sslCertificate sslCertificateKey;
        };
      };
    })
  ]);
}
