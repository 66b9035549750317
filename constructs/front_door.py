"""The web UI's public side: load balancer, certificate and name, and the alarms about them."""

from __future__ import annotations

from collections.abc import Sequence

from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_route53 as route53
from constructs import Construct
from constructs.alarm import DAY, MINUTE, add_alarm

from settings import Environment
from settings.naming import LOAD_BALANCER_LOGS

# TLS 1.2 and 1.3 with forward secrecy and authenticated encryption only.
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06"
# ACM renews it weeks earlier.
CERTIFICATE_DAYS = 30


class FrontDoor(Construct):
    """A load balancer that terminates TLS and passes everything to one target group.

    Attributes:
        url: what people type, without a slash at the end.
        target_group: the ARN of the target group.
    """

    url: str
    target_group: str

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        environment: Environment,
        vpc: str,
        subnets: Sequence[str],
        security_group: str,
        logs: str,
        hosted_zone_id: str | None,
    ) -> None:
        """Makes the load balancer and what belongs to it.

        Args:
            scope: the construct that it belongs to.
            id: its name there.
            environment: the settings.
            vpc: the VPC's id.
            subnets: the ids of public subnets, in at least two zones.
            security_group: the id of the group that says who may talk to it.
            logs: the name of the bucket for its access logs.
            hosted_zone_id: the id of the domain's public hosted zone; None: there is no domain, and no HTTPS.
        """
        super().__init__(scope, id)
        self._balancer = self._load_balancer(environment, subnets, security_group, logs)
        target_group = self._target_group(vpc)
        self.target_group = target_group.ref
        self._health_alarm(environment, target_group)
        forward = elb.CfnListener.ActionProperty(type="forward", target_group_arn=self.target_group)
        if environment.domain is None or hosted_zone_id is None:
            self.url = f"http://{self._balancer.attr_dns_name}"
            self._listener("Http", port=80, action=forward)
        else:
            domain = environment.domain.name
            self.url = f"https://{domain}"
            self._record(domain, hosted_zone_id)
            certificate = self._certificate(domain, hosted_zone_id)
            self._certificate_alarm(environment, certificate)
            self._listener("Https", port=443, action=forward, certificate=certificate)
            redirect = elb.CfnListener.RedirectConfigProperty(
                protocol="HTTPS", port="443", status_code="HTTP_301"
            )
            self._listener(
                "Http",
                port=80,
                action=elb.CfnListener.ActionProperty(type="redirect", redirect_config=redirect),
            )

    def _load_balancer(
        self, environment: Environment, subnets: Sequence[str], security_group: str, logs: str
    ) -> elb.CfnLoadBalancer:
        attributes = {
            "access_logs.s3.enabled": "true",
            "access_logs.s3.bucket": logs,
            "access_logs.s3.prefix": LOAD_BALANCER_LOGS,
            "deletion_protection.enabled": "false" if environment.disposable else "true",
            # Workers and browsers keep websockets open that may be silent for minutes.
            "idle_timeout.timeout_seconds": "3600",
            "routing.http.drop_invalid_header_fields.enabled": "true",
        }
        return elb.CfnLoadBalancer(
            self,
            "LoadBalancer",
            type="application",
            scheme="internet-facing",
            subnets=list(subnets),
            security_groups=[security_group],
            load_balancer_attributes=[
                elb.CfnLoadBalancer.LoadBalancerAttributeProperty(key=key, value=value)
                for key, value in attributes.items()
            ],
        )

    def _target_group(self, vpc: str) -> elb.CfnTargetGroup:
        return elb.CfnTargetGroup(
            self,
            "TargetGroup",
            vpc_id=vpc,
            target_type="instance",
            protocol="HTTP",
            port=80,
            health_check_path="/health",
            health_check_interval_seconds=10,
            health_check_timeout_seconds=5,
            healthy_threshold_count=2,
            unhealthy_threshold_count=3,
            matcher=elb.CfnTargetGroup.MatcherProperty(http_code="200"),
            target_group_attributes=[
                elb.CfnTargetGroup.TargetGroupAttributeProperty(
                    key="deregistration_delay.timeout_seconds", value="30"
                )
            ],
        )

    def _health_alarm(self, environment: Environment, target_group: elb.CfnTargetGroup) -> None:
        add_alarm(
            self,
            "NoHealthyHost",
            environment=environment,
            name="HealthyHostCount",
            meaning="for 15 minutes, the load balancer has found no web UI that answers (docs/operating.md)",
            namespace="AWS/ApplicationELB",
            dimensions={
                "LoadBalancer": self._balancer.attr_load_balancer_full_name,
                "TargetGroup": target_group.attr_target_group_full_name,
            },
            statistic="Maximum",
            threshold=1,
            below=True,
            # A new host is up sooner, unless it has to wait for what its predecessor holds. While no host is
            # registered, there are no figures.
            period=MINUTE,
            periods=15,
        )

    def _listener(
        self, id: str, *, port: int, action: elb.CfnListener.ActionProperty, certificate: str | None = None
    ) -> None:
        elb.CfnListener(
            self,
            id,
            load_balancer_arn=self._balancer.ref,
            port=port,
            protocol="HTTPS" if certificate else "HTTP",
            default_actions=[action],
            certificates=(
                [elb.CfnListener.CertificateProperty(certificate_arn=certificate)] if certificate else None
            ),
            ssl_policy=TLS_POLICY if certificate else None,
        )

    def _record(self, domain: str, hosted_zone_id: str) -> None:
        route53.CfnRecordSet(
            self,
            "Record",
            hosted_zone_id=hosted_zone_id,
            name=f"{domain}.",
            type="A",
            alias_target=route53.CfnRecordSet.AliasTargetProperty(
                dns_name=f"dualstack.{self._balancer.attr_dns_name}",
                hosted_zone_id=self._balancer.attr_canonical_hosted_zone_id,
            ),
        )

    def _certificate(self, domain: str, hosted_zone_id: str) -> str:
        """Returns the certificate's ARN; its deployment waits until ACM has seen its record in the zone."""
        return acm.CfnCertificate(
            self,
            "Certificate",
            domain_name=domain,
            validation_method="DNS",
            domain_validation_options=[
                acm.CfnCertificate.DomainValidationOptionProperty(
                    domain_name=domain, hosted_zone_id=hosted_zone_id
                )
            ],
        ).ref

    def _certificate_alarm(self, environment: Environment, certificate: str) -> None:
        add_alarm(
            self,
            "CertificateDays",
            environment=environment,
            name="CertificateDays",
            meaning=f"the web UI's certificate expires in less than {CERTIFICATE_DAYS} days: ACM could not "
            "renew it (docs/operating.md)",
            namespace="AWS/CertificateManager",
            metric="DaysToExpiry",
            dimensions={"CertificateArn": certificate},
            statistic="Minimum",
            threshold=CERTIFICATE_DAYS,
            below=True,
            period=DAY,
            # ACM reports it once or twice a day, and stops when the certificate has expired.
            missing="ignore",
        )
