# Settings that must be refused are, and those that must work do; nothing is built for it.
{
  lib,
  runCommand,
  evaluate,
}:
let
  refusals =
    settings:
    lib.filter (lib.hasPrefix "services.project-yum:") (
      map (assertion: assertion.message) (
        lib.filter (assertion: !assertion.assertion)
          (evaluate { services.project-yum = { enable = true; } // settings; }).assertions
      )
    );
  key.jwt_secret = "/run/secrets/jwt";
  cases = {
    "nothing set" = {
      set = { };
      refused = 0;
    };
    "a public server with a key" = {
      set = {
        credentials = key;
        settings.listen.address = "0.0.0.0";
      };
      refused = 0;
    };
    "a public server without a key" = {
      set.settings.listen.address = "0.0.0.0";
      refused = 1;
    };
    "one port for clients and metrics" = {
      set.settings.listen.port = 9464;
      refused = 1;
    };
    "a certificate without its key" = {
      set = {
        credentials = key;
        nginx = {
          enable = true;
          virtualHost = "chat.example.org";
          sslCertificate = "/etc/chat.pem";
        };
      };
      refused = 1;
    };
    "nginx without a name" = {
      set = {
        credentials = key;
        nginx.enable = true;
      };
      refused = 1;
    };
    "two databases" = {
      set = {
        credentials = key // {
          database_url = "/run/secrets/database";
        };
        database.createLocally = true;
      };
      refused = 1;
    };
    "a secret among the settings" = {
      set.settings.jwt_secret = "0123456789abcdef0123456789abcdef";
      refused = 1;
    };
    "a password among the settings" = {
      set.settings.database_url = "postgres://chat:secret@db/chat";
      refused = 1;
    };
  };
  wrong = lib.filterAttrs (_: case: lib.length (refusals case.set) != case.refused) cases;
in
assert lib.assertMsg (wrong == { })
  "services.project-yum judges wrongly: ${lib.concatStringsSep "; " (lib.attrNames wrong)}";
runCommand "project-yum-module-eval" { } "touch $out"
